use super::*;

#[test]
fn each_task_gets_one_new_id() {
    let mut ids = HashMap::new();
    let mut task_id = |json: &str| {
        let raw = RawValue::from_string(json.to_owned()).unwrap();
        let replaced = replace_task_id(raw, &mut ids).unwrap();
        serde_json::from_str::<Value>(replaced.get()).unwrap()["task_id"].clone()
    };
    let (a, b) = (task_id(r#"{"task_id":"a","x":1}"#), task_id(r#"{"task_id":"b"}"#));
    assert!(a != "a" && b != "b" && a != b);
    assert_eq!(task_id(r#"{"task_id":"a"}"#), a);
    assert_eq!((task_id("{}"), task_id("[1]")), (Value::Null, Value::Null));
}
