//! What a node knows of itself and its machine, and how it keeps what nobody else may read.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The number of the last life, for other nodes.
const LIFE_FILE: &str = "life";
/// Two lives are so far from each other at least, in microseconds: what a life numbers begins with its own number.
const LIFE_STEP: u64 = 1 << 17;

/// 32 bytes that nobody can guess.
pub fn entropy() -> anyhow::Result<[u8; 32]> {
    use std::io::Read;
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .context("/dev/urandom cannot be read")?;
    Ok(bytes)
}

/// This machine's name.
pub fn hostname() -> anyhow::Result<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    anyhow::ensure!(
        !name.is_empty() && name != "localhost",
        "this machine has no name by which other nodes could reach it\n  hint: say where: --set advertise=HOST:PORT"
    );
    Ok(name)
}

/// What tells this machine from others, for those who want to know what fails together.
pub fn machine() -> String {
    let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let hash = blake3::hash(format!("bourse {} {name}", id.trim()).as_bytes());
    format!("machine-{}", &hash.to_hex()[..12])
}

/// The folder of what this user's nodes on this machine have in common, where they all look for it.
pub fn runtime_folder() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match runtime.filter(|path| path.is_absolute() && path.is_dir()) {
        Some(runtime) => runtime.join("bourse"),
        None => temporary_folder(),
    }
}

/// The same where there is no such place. Not in the temporary folder of the environment: nodes of one user may have
/// different ones.
pub fn temporary_folder() -> PathBuf {
    PathBuf::from(format!("/tmp/bourse-{}", rustix::process::getuid().as_raw()))
}

/// Makes a folder that nobody else can enter, or makes sure that it is one.
pub fn make_private_folder(folder: &Path) -> anyhow::Result<()> {
    let shown = folder.display();
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            return Err(e)
                .with_context(|| format!("the folder {shown} for nodes of this machine cannot be made"));
        }
        _ => {}
    }
    let there = fs::symlink_metadata(folder).with_context(|| format!("{shown} cannot be looked at"))?;
    let user = rustix::process::getuid().as_raw();
    if !there.is_dir() {
        anyhow::bail!("{shown} is no folder");
    } else if there.uid() != user {
        anyhow::bail!("{shown} belongs to the user {}, and this is the user {user}", there.uid());
    } else if there.mode() & 0o077 != 0 {
        anyhow::bail!("{shown} can be entered by others (its mode is {:03o})", there.mode() & 0o777);
    }
    Ok(())
}

/// Writes a file that only its owner can read, whole or not at all.
pub fn write_private(path: &Path, contents: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(contents.as_ref())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

/// A number for this life of the daemon: the time, in microseconds.
pub fn life() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(0)
}

/// The same for one of several nodes: greater than those of its lives before, even if the clock was put back since. Other nodes take
/// what has a smaller one for something that comes late.
pub fn next_life(data: &Path) -> anyhow::Result<u64> {
    let path = data.join(LIFE_FILE);
    let last: u64 = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let life = life().max(last.saturating_add(LIFE_STEP));
    write_private(&path, format!("{life}\n"))?;
    Ok(life)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_life_has_a_greater_number_whatever_the_clock_says() {
        let data = tempfile::tempdir().unwrap();
        let first = next_life(data.path()).unwrap();
        assert!(first >= life() - 60_000_000, "it is the time");
        let second = next_life(data.path()).unwrap();
        assert!(second >= first + LIFE_STEP);
        // The clock was a day ahead.
        let ahead = second + 86_400_000_000;
        fs::write(data.path().join(LIFE_FILE), ahead.to_string()).unwrap();
        assert_eq!(next_life(data.path()).unwrap(), ahead + LIFE_STEP);
        fs::write(data.path().join(LIFE_FILE), "nonsense").unwrap();
        assert!(next_life(data.path()).unwrap() >= first);
    }
}
