use super::*;

fn field(json: &str) -> Option<Result<Value, FieldProblem>> {
    let data = RawValue::from_string(format!(r#"{{"a":{json},"other":"\ud800"}}"#)).unwrap();
    ClientObject::read(&data).unwrap().field("a")
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
        assert_eq!(value, serde_json::from_str::<Value>(json).unwrap(), "{json}");
    }
    assert!(field("null").is_none());
    let data = RawValue::from_string("{}".to_owned()).unwrap();
    assert!(ClientObject::read(&data).unwrap().field("a").is_none());
}

#[test]
fn numbers_keep_every_digit() {
    for number in ["6.2E53", "0.1", "8.98846567431158e307", "5e-324", "123456789.12345679"] {
        let value = field(number).expect(number).expect(number);
        assert_eq!(value.as_f64(), number.parse().ok(), "{number}");
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
    }
    let data = RawValue::from_string(r#"{"\ud800":1}"#.to_owned()).unwrap();
    assert!(ClientObject::read(&data).is_none());
}
