use super::*;

#[test]
fn names_are_replaced_and_dollars_escaped() {
    let environment = Environment::from_iter([("A", "1"), ("EMPTY", ""), ("D", "$${A}")]);
    for (text, expected) in [
        ("plain", Ok("plain")),
        ("${A}", Ok("1")),
        ("x${A}y${A}z", Ok("x1y1z")),
        ("${EMPTY}", Ok("")),
        ("$${A}", Ok("${A}")),
        ("$$$${A}", Ok("$${A}")),
        ("$$${A}", Ok("$1")),
        ("cost $5", Ok("cost $5")),
        ("end$", Ok("end$")),
        // Values are not substituted again.
        ("${D}", Ok("$${A}")),
        ("${B}", Err("the environment variable B is not set")),
        (
            "${A",
            Err("a ${ is not followed by a name and }; write ${NAME}, or $$ for a dollar sign"),
        ),
        (
            "${}",
            Err("a ${ is not followed by a name and }; write ${NAME}, or $$ for a dollar sign"),
        ),
    ] {
        let result = environment.substitute(text);
        assert_eq!(result.as_deref().map_err(String::as_str), expected, "{text}");
    }
}

#[test]
fn overrides_are_found_in_any_case() {
    let environment = Environment::from_iter([
        ("TIDEGATE__SERVER__LISTEN", "a"),
        ("tidegate__engine__redis__key_prefix", "b"),
        ("TIDEGATE_SERVER", "no"),
        ("TIDEGATE", "no"),
        ("ümlaute__", "no"),
    ]);
    let overrides = environment.overrides();
    let paths: Vec<&str> = overrides.keys().map(String::as_str).collect();
    assert_eq!(paths, ["engine.redis.key_prefix", "server.listen"]);
}
