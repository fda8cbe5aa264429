use super::*;

fn module(name: &str, functions: &[(&str, &[&str])]) -> Deployed {
    let parameter = |name: &str| v1::Parameter { name: name.into(), ..Default::default() };
    let functions = functions.iter().map(|(name, http)| v1::Function {
        name: (*name).into(),
        http: http.iter().map(|h| (*h).into()).collect(),
        parameters: ["key", "path", "id", "a", "b"].map(parameter).into(),
        ..Default::default()
    });
    Deployed {
        module: v1::Module { name: name.into(), functions: functions.collect(), ..Default::default() },
    }
}

fn check(routes: &Routes, method: &str, path: &str, expected: &str) {
    let found = match routes.find(&method.parse().unwrap(), path) {
        Ok(Found::Route(target, params)) => {
            let params = params.iter().map(|(k, v)| format!(" {k}={v}")).collect::<String>();
            format!("{}{params}", target.name)
        }
        Ok(Found::Otherwise(allowed)) => allowed.join(","),
        Ok(Found::Nothing) => "nothing".into(),
        Err(e) => e.to_string(),
    };
    assert_eq!(found, expected, "{method} {path}");
}

#[test]
fn the_more_specific_wins() {
    let routes = Routes::new(
        &[module(
            "m",
            &[
                ("root", &["GET /"]),
                ("get", &["GET /kv/{key}"]),
                ("put", &["POST /kv/{id}"]),
                ("list", &["GET /kv/list"]),
                ("deep", &["GET /kv/{a}/x"]),
                ("rest", &["GET /kv/{*path}"]),
                ("slash", &["GET /dir/"]),
                ("any", &["GET /f/{*path}"]),
            ],
        )],
        &[("DELETE /kv/list".into(), FunctionName::new("m", "list"))],
    )
    .unwrap();
    for (method, path, expected) in [
        ("GET", "/", "m.root"),
        ("GET", "/kv/a", "m.get key=a"),
        ("GET", "/kv/a%2Fb", "m.get key=a/b"),
        ("GET", "/kv/li%73t", "m.list"),
        ("HEAD", "/kv/list", "m.list"),
        ("POST", "/kv/list", "m.put id=list"),
        ("DELETE", "/kv/list", "m.list"),
        ("DELETE", "/kv/other", "GET,HEAD,POST"),
        ("GET", "/kv/list/x", "m.deep a=list"),
        ("GET", "/kv/list/y", "m.rest path=list/y"),
        ("GET", "/kv/a/x/y/", "m.rest path=a/x/y/"),
        ("GET", "/kv//x", "a path that climbs, is absolute, or holds a NUL"),
        ("GET", "/kv/", "nothing"),
        ("GET", "/kv", "nothing"),
        ("GET", "/dir/", "m.slash"),
        ("GET", "/dir", "nothing"),
        ("GET", "/f/a%20b/%2e%2e/c", "a path that climbs, is absolute, or holds a NUL"),
        ("GET", "/f/..%2fc", "a path that climbs, is absolute, or holds a NUL"),
        ("GET", "/kv/%", "a % that is not followed by two hexadecimal digits"),
        ("GET", "/kv/%ff", "percent-encoded bytes that are not UTF-8"),
        ("OPTIONS", "/kv/a", "GET,HEAD,POST"),
        ("BREW", "/kv/a", "GET,HEAD,POST"),
        ("OPTIONS", "*", "nothing"),
    ] {
        check(&routes, method, path, expected);
    }
    let long = "/x".repeat(20_000);
    check(&routes, "GET", &format!("/f{long}"), &format!("m.any path={}", &long[1..]));
}

#[test]
fn conflicts_name_both() {
    let conflict =
        |functions: &[(&str, &[&str])]| Routes::new(&[module("m", functions)], &[]).unwrap_err().to_string();
    assert_eq!(
        conflict(&[("f", &["GET /a/{key}"]), ("g", &["GET /a/{id}"])]),
        "m.g: the route \"GET /a/{id}\" already belongs to m.f"
    );
    assert_eq!(
        conflict(&[("f", &["GET a"])]),
        "m.f: the route \"GET a\": the path \"a\" does not start with /"
    );
    assert_eq!(
        conflict(&[("f", &["GET /{zz}"])]),
        "m.f: the route \"GET /{zz}\" binds \"zz\", which the function does not take"
    );
    assert_eq!(
        conflict(&[("f", &[]), ("f", &[])]),
        "\"m.f\" is there twice, or is not a name that can be called"
    );
    let unknown = Routes::new(&[], &[("GET /x".into(), FunctionName::new("m", "f"))]);
    assert_eq!(unknown.unwrap_err().to_string(), "the route \"GET /x\" is for m.f, which is not deployed");
    let many: Vec<String> = (0..=ROUTES_MAX).map(|i| format!("GET /{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(conflict(&[("f", &many)]), "10001 routes, at most 10000 are allowed");
}

#[test]
fn near_names_are_suggested() {
    let routes =
        Routes::new(&[module("treedb", &[("write", &["POST /kv/{key}"]), ("read", &[])])], &[]).unwrap();
    assert_eq!(routes.near_function("treedb.wirte").unwrap(), "did you mean treedb.write?");
    assert_eq!(routes.near_route("/kw/{key}").unwrap(), "did you mean /kv/{key}?");
    assert_eq!(routes.near_route("/v1/call/treedb.raed").unwrap(), "did you mean /v1/call/treedb.read?");
    assert_eq!(routes.near_function("zzz"), None);
}

proptest::proptest! {
    #[test]
    fn any_path_is_found_or_not(path in ".{0,60}", method in "[A-Z]{1,8}") {
        let routes = Routes::new(&[module("m", &[("f", &["GET /{a}/x/{*path}"]), ("g", &["POST /{b}"])])], &[]).unwrap();
        let _ = routes.find(&method.parse().unwrap(), &path);
    }
}

#[test]
fn what_cannot_be_is_left_out_alone() {
    let modules = [
        module("shop", &[("f", &["GET /a"])]),
        module("tool", &[("g", &["GET /a", "GET /v1/x", "GET /b"]), ("", &[]), ("h", &[])]),
    ];
    let extra = [("GET b", "f"), ("GET /b", "f"), ("GET /c", "f"), ("GET /d", "gone")];
    let extra = extra.map(|(route, f)| (route.to_owned(), FunctionName::new("shop", f)));
    let (routes, left_out) = Routes::as_far_as_possible(&modules, &extra, &Held::new());
    check(&routes, "GET", "/a", "shop.f");
    check(&routes, "GET", "/b", "tool.g");
    check(&routes, "GET", "/c", "shop.f");
    assert!(["tool.g", "tool.h"].iter().all(|name| routes.function(name).is_some()));
    let of = |module: Option<&str>| left_out.iter().filter(|l| l.module.as_deref() == module).count();
    assert_eq!([of(Some("shop")), of(Some("tool")), of(None)], [0, 3, 3], "{left_out:?}");

    // Whoever has a route keeps it, wherever it stands.
    let [shop, tool] = modules;
    let (routes, _) = Routes::as_far_as_possible(&[tool, shop], &[], &routes.held());
    check(&routes, "GET", "/a", "shop.f");
    check(&routes, "GET", "/b", "tool.g");
}
