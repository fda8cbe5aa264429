//! Python environments: a real one, and the ways in which making one fails.
#![expect(clippy::unwrap_used, reason = "what can't be set up is a failed test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::channel;

use bourse_worker::environment::{Environment, Error, Problem, Progress, Python, PythonError, Spec};

/// Kept over runs, because making an environment takes its time.
fn cache() -> PathBuf {
    let kept = std::env::var_os("BOURSE_TEST_CACHE").map(PathBuf::from);
    kept.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("environments"))
}

/// A script that answers for Python: `venv` copies it, and as pip it says `pip` and fails if that is not empty.
fn fake(folder: &Path, version: &str, has_venv: bool, pip: &str) -> PathBuf {
    let path = folder.join("fake-python");
    let venv = if has_venv { "True" } else { "False" };
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n\
         *' -c '*) printf '{version}\\n%s\\nFake linux\\n{venv}\\n' \"$0\";;\n\
         '-m venv '*) mkdir -p \"$3/bin\"; cp \"$0\" \"$3/bin/python\";;\n\
         *) printf '%s\\n' \"{pip}\"; [ -z \"{pip}\" ];;\nesac\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn spec<'a>(python: &'a Python, cache: &'a Path) -> Spec<'a> {
    Spec { python, cache, requirements: None, variables: &[] }
}

#[test]
fn a_real_environment_has_what_it_should() {
    let folder = tempfile::tempdir().unwrap();
    let requirements = folder.path().join("requirements.txt");
    fs::write(&requirements, "six\n").unwrap();
    let python = Python::find(None).unwrap();
    let cache = cache();
    let spec = Spec { requirements: Some(&requirements), ..spec(&python, &cache) };
    let mut told = Vec::new();
    let environment = Environment::ensure(spec, |p| told.push(p)).unwrap();
    if told.contains(&Progress::Creating) {
        let is_six = |p: &Progress| matches!(p, Progress::Installing(what) if what.contains("six"));
        assert!(told.iter().any(is_six), "{told:?}");
    }
    let script = "import six, zmq, cbor2, google.protobuf";
    assert!(Command::new(&environment.python).args(["-I", "-c", script]).status().unwrap().success());

    // The second time it is there.
    let again = Environment::ensure(spec, |p| panic!("{p:?}")).unwrap();
    assert_eq!(again, environment);
}

#[test]
fn no_network_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let python = Python::find(None).unwrap();
    let variables = [
        ("PIP_INDEX_URL", "http://127.0.0.1:9/"),
        ("PIP_RETRIES", "1"),
        ("PIP_FIND_LINKS", ""),
        ("PIP_NO_CACHE_DIR", "1"),
        ("no_proxy", "127.0.0.1"),
    ];
    let variables = variables.map(|(name, value)| (name.into(), value.into()));
    let spec = Spec { variables: &variables, ..spec(&python, folder.path()) };
    let error = Environment::ensure(spec, |_| {}).unwrap_err();
    let Error::Install { problem: Problem::NoNetwork, message, log } = &error else { panic!("{error:?}") };
    assert!(message.contains("pip could not reach a package index: "), "{message}");
    assert!(message.contains("refused"), "{message}");
    assert!(fs::read_to_string(log).unwrap().contains("pip install"));
    assert!(error.hint().contains("PIP_INDEX_URL"));
}

#[test]
fn a_pin_that_cannot_work_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let python = Python::find(Some(&fake(folder.path(), "3.12.1", true, ""))).unwrap();
    let requirements = folder.path().join("requirements.txt");
    fs::write(&requirements, "six\nprotobuf==3.19\n").unwrap();
    let cache = folder.path().join("cache");
    let spec = Spec { requirements: Some(&requirements), ..spec(&python, &cache) };
    let error = Environment::ensure(spec, |p| panic!("{p:?}")).unwrap_err();
    assert!(error.to_string().contains("requirements.txt:2: protobuf==3.19"), "{error}");
    assert!(!cache.exists());
}

#[test]
fn what_failed_is_not_taken_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let words = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device";
    // 1. pip fails.
    let python = Python::find(Some(&fake(folder.path(), "3.12.1", true, words))).unwrap();
    let error = Environment::ensure(spec(&python, &cache), |_| {}).unwrap_err();
    assert!(matches!(error, Error::Install { problem: Problem::DiskFull, .. }), "{error:?}");
    // 2. A crash leaves a half-made environment.
    let python = Python::find(Some(&fake(folder.path(), "3.12.1", true, ""))).unwrap();
    let environment = Environment::ensure(spec(&python, &cache), |_| {}).unwrap();
    fs::remove_file(environment.folder.join("complete")).unwrap();
    fs::write(environment.folder.join("half"), "").unwrap();
    // 3. It is made anew.
    let mut told = Vec::new();
    assert_eq!(Environment::ensure(spec(&python, &cache), |p| told.push(p)).unwrap(), environment);
    assert_eq!(told, [Progress::Creating]);
    assert!(!environment.folder.join("half").exists());
    // 4. The interpreter vanishes: likewise.
    fs::remove_file(&environment.python).unwrap();
    Environment::ensure(spec(&python, &cache), |_| {}).unwrap();
    assert!(environment.python.exists());
}

#[test]
fn two_daemons_make_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let python = Python::find(Some(&fake(folder.path(), "3.12.1", true, ""))).unwrap();
    let (waiting, waits) = channel();
    std::thread::scope(|scope| {
        let mut second = None;
        let first = Environment::ensure(spec(&python, &cache), |p| {
            // While the first is making it, the second starts, and waits.
            if p == Progress::Creating {
                let (python, cache, waiting) = (&python, &cache, waiting.clone());
                second = Some(scope.spawn(move || {
                    Environment::ensure(spec(python, cache), |p| waiting.send(p).unwrap()).unwrap()
                }));
                assert_eq!(waits.recv().unwrap(), Progress::Waiting);
            }
        });
        assert_eq!(second.unwrap().join().unwrap(), first.unwrap());
        assert!(waits.try_recv().is_err());
    });
}

#[test]
fn a_python_that_will_not_do_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let old = Python::find(Some(&fake(folder.path(), "3.8.10", true, ""))).unwrap_err();
    assert!(matches!(old, PythonError::TooOld { .. }));
    assert!(old.to_string().ends_with("is Python 3.8.10, and at least 3.9.0 is needed"), "{old}");
    let bare = Python::find(Some(&fake(folder.path(), "3.11.2", false, ""))).unwrap_err();
    assert!(matches!(bare, PythonError::NoVenv { .. }));
    assert!(bare.hint().contains("apt install python3-venv (or python3.11-venv)"), "{}", bare.hint());
    let none = Python::find(Some(Path::new("/no/such/python"))).unwrap_err();
    assert_eq!(none.to_string(), "/no/such/python can't be run: no such file");
    let other = Python::find(Some(Path::new("/bin/true"))).unwrap_err();
    assert!(other.to_string().contains("does not answer as a Python would"), "{other}");
}
