use super::*;

#[test]
fn data_becomes_one_object_with_an_event() {
    for (name, data, object_) in [
        ("", r#" {"event":"token","x": 1} "#, r#"{"event":"token","x": 1}"#),
        ("other", r#"{"event":"token"}"#, r#"{"event":"token"}"#),
        ("token", r#"{ "x":1}"#, r#"{"event":"token","x":1}"#),
        ("token", "{ }", r#"{"event":"token"}"#),
        ("a\"b", r#"{"x":1}"#, r#"{"event":"a\"b","x":1}"#),
        ("message", r#"{"x":1}"#, r#"{"event":"chunk","chunk":{"x":1}}"#),
        ("", r#"{"x":1}"#, r#"{"event":"chunk","chunk":{"x":1}}"#),
        ("token", r#"{"event":7}"#, r#"{"event":"token","data":{"event":7}}"#),
        ("", r#"{"event":7}"#, r#"{"event":"chunk","chunk":{"event":7}}"#),
        ("token", "[1]", r#"{"event":"token","data":[1]}"#),
        ("token", "\"a\"", r#"{"event":"token","data":"a"}"#),
        ("token", "a", r#"{"event":"token","data":"a"}"#),
        ("token", "null", r#"{"event":"token","data":null}"#),
        ("token", "", r#"{"event":"token"}"#),
        ("chunk", "a", r#"{"event":"chunk","chunk":"a"}"#),
        ("chunk", r#"{"x":1}"#, r#"{"event":"chunk","x":1}"#),
        ("complete", "", r#"{"event":"complete"}"#),
        ("token", r#"{"event":null}"#, r#"{"event":"token"}"#),
        (
            "token",
            r#"{"x":1, "event" : null ,"y":{"event":null}}"#,
            r#"{"event":"token","x":1,"y":{"event":null}}"#,
        ),
        ("token", r#"{"e\u0076ent":null,"x":1}"#, r#"{"event":"token","x":1}"#),
        ("", r#"{"event":null,"x":1}"#, r#"{"event":"chunk","chunk":{"event":null,"x":1}}"#),
        (
            "",
            r#"{"event":"a","event":"b"}"#,
            r#"{"event":"chunk","chunk":{"event":"a","event":"b"}}"#,
        ),
        ("", "[1,{}]", r#"{"event":"chunk","chunk":[1,{}]}"#),
        ("", "7", r#"{"event":"chunk","chunk":7}"#),
        ("", "\"a\"", r#"{"event":"chunk","chunk":"a"}"#),
        ("", "two \"words\"\n", r#"{"event":"chunk","chunk":"two \"words\"\n"}"#),
        ("", r#"{"event":"a""#, r#"{"event":"chunk","chunk":"{\"event\":\"a\""}"#),
        ("", "", r#"{"event":"chunk","chunk":""}"#),
        ("", r#"{"event":"a","x":[NaN]}"#, r#"{"event":"a","x":["NaN"]}"#),
        ("token", r#"{"x":-Infinity}"#, r#"{"event":"token","x":"-Infinity"}"#),
        ("", "NaN", r#"{"event":"chunk","chunk":"NaN"}"#),
        ("", "{'event': 'a'}", r#"{"event":"chunk","chunk":"{'event': 'a'}"}"#),
        ("", r#"{"event":"a","x":"\ud83d"}"#, r#"{"event":"a","x":"\ud83d"}"#),
        ("", r#"{"\ud83d":1,"event":"a"}"#, r#"{"\ud83d":1,"event":"a"}"#),
        ("", r#"{"e\u0076ent":"a"}"#, r#"{"e\u0076ent":"a"}"#),
    ] {
        assert_eq!(to_object(name, data), object_, "{name:?} {data:?}");
        assert!(is_json(object_), "{object_}");
    }
}

#[test]
fn deep_nesting_does_no_harm() {
    let deep = "[".repeat(100_000);
    assert!(to_object("", &deep).starts_with(br#"{"event":"chunk","chunk":""#));
    let closed = format!("{deep}{}", "]".repeat(100_000));
    assert!(to_object("", &closed).starts_with(br#"{"event":"chunk","chunk":""#));
}

#[test]
fn named_errors_say_what_went_wrong() {
    for (data, error) in [
        ("it broke", r#"{"event":"error","error":"it broke","code":"task_failed"}"#),
        ("\"it broke\"", r#"{"event":"error","error":"it broke","code":"task_failed"}"#),
        (
            "",
            r#"{"event":"error","error":"the service failed while it replied","code":"task_failed"}"#,
        ),
        (
            "null",
            r#"{"event":"error","error":"the service failed while it replied","code":"task_failed"}"#,
        ),
        ("[1]", r#"{"event":"error","error":"1","code":"task_failed"}"#),
        (
            "{}",
            r#"{"event":"error","error":"the service failed while it replied","code":"task_failed"}"#,
        ),
        (
            r#"{"event":null,"error":"no","code":"quota","n":1}"#,
            r#"{"event":"error","error":"no","code":"quota","n":1}"#,
        ),
        (
            r#"{"message":"no","code":7}"#,
            r#"{"event":"error","error":"no","code":"task_failed","upstream_code":"7","message":"no"}"#,
        ),
        (
            r#"{"error":{"message":"no","type":"overloaded"}}"#,
            r#"{"event":"error","error":"no","code":"task_failed","upstream_code":"overloaded"}"#,
        ),
        (
            r#"{"detail":"no"}"#,
            r#"{"event":"error","error":"no","code":"task_failed","detail":"no"}"#,
        ),
    ] {
        let event = to_error(data).expect("an error");
        assert_eq!(event, error, "{data:?}");
        assert!(is_json(error), "{error}");
    }
    assert_eq!(to_error(r#"{"event":"token"}"#), None);
}
