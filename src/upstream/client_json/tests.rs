use super::*;

fn field_for(json: &str, read_by: ReadBy) -> Option<Result<String, FieldProblem>> {
    let data = RawValue::from_string(format!(r#"{{"a":{json},"other":"\ud800"}}"#)).unwrap();
    let object = ClientObject::read(&data, &["a"]).unwrap();
    object.field("a", read_by).map(|field| field.map(str::to_owned))
}

fn field(json: &str) -> Option<Result<String, FieldProblem>> {
    field_for(json, ReadBy::Celery)
}

#[test]
fn fields_are_read_unchanged() {
    for json in [
        "0",
        "-7",
        "1.5",
        "1e300",
        "18446744073709551615",
        "-9223372036854775808",
        "\"\"",
        r#""\u00e9\ud83d\ude80 \"1234567890123456789012\" \\""#,
        "[]",
        "{}",
        "false",
        r#"{"b":[1,{"c":null}],"__type__":"x"}"#,
    ] {
        let value = field(json).expect(json).expect(json);
        assert_eq!(value, json);
        assert_eq!(field_for(json, ReadBy::HttpServer), Some(Ok(value)));
    }
    assert!(field("null").is_none());
    let data = RawValue::from_string("{}".to_owned()).unwrap();
    assert!(ClientObject::read(&data, &["a"]).unwrap().field("a", ReadBy::Celery).is_none());
}

#[test]
fn numbers_keep_every_digit() {
    for number in ["6.2E53", "0.1", "8.98846567431158e307", "5e-324", "123456789.12345679"] {
        assert_eq!(field(number), Some(Ok(number.to_owned())));
    }
}

#[test]
fn values_that_a_worker_could_not_decode_are_refused() {
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    for json in [
        r#""\ud800""#,
        r#"["\udc00\ud800"]"#,
        r#"{"\ud800":1}"#,
        "1e400",
        "-1e999",
        "18446744073709551616",
        "-9223372036854775809",
        r#"{"a":[1,"\"",100000000000000000000]}"#,
        &"9".repeat(5000),
        &deep,
        r#"{"__type__":"datetime","__value__":"x"}"#,
        r#"[{"b":{"__value__":1,"__type__":["x"]}}]"#,
    ] {
        assert!(field(json).is_some_and(|field| field.is_err()), "{json}");
        let is_marked = json.contains("__type__");
        let for_server = field_for(json, ReadBy::HttpServer).unwrap();
        assert_eq!(for_server.is_ok(), is_marked, "{json}");
    }
    let data = RawValue::from_string(r#"{"\ud800":1}"#.to_owned()).unwrap();
    assert!(ClientObject::read(&data, &["a"]).is_none());
}

#[test]
fn only_wanted_fields_are_kept_and_the_last_of_each_counts() {
    let data = r#"{"b":1,"a":1, "c":{"a":5},"\u0061" : [2, 3] ,"d":null}"#;
    let data = RawValue::from_string(data.to_owned()).unwrap();
    let object = ClientObject::read(&data, &["a", "c", "d", "e"]).unwrap();
    let field = |name: &str| object.field(name, ReadBy::HttpServer);
    assert_eq!(field("a"), Some(Ok("[2, 3]")));
    assert_eq!(field("c"), Some(Ok(r#"{"a":5}"#)));
    assert_eq!((field("b"), field("d"), field("e")), (None, None, None));
}
