//! Templates of values as files have them.

use std::path::Path;

use super::*;
use crate::config::context::Context;
use crate::config::environment::Environment;
use crate::config::section::read_document;

/// Parses a value and returns its mistakes, each with its key.
fn parse_for(text: &str, read_by: ReadBy) -> Result<ValueTemplate, Vec<String>> {
    let document: Table = format!("x = {text}").parse().expect("valid TOML");
    let environment = Environment::from_iter([("NAME", "hunter2{")]);
    let context = Context::new(&environment, Path::new(""));
    let (value, outcome) = read_document(context, document, |root| {
        let value = root.nested("x", "value", "", "").expect("a value");
        TemplateReader::new(root, read_by).value("x", &value)
    });
    let mistakes: Vec<String> = outcome.mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(value.is_none(), !mistakes.is_empty(), "{text}: {mistakes:?}");
    value.ok_or(mistakes)
}

fn parse(text: &str) -> Result<ValueTemplate, Vec<String>> {
    parse_for(text, ReadBy::Celery)
}

fn constant_of(text: &str) -> Json {
    match parse(text) {
        Ok(ValueTemplate::Constant(value)) => value,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn values_are_typed() {
    assert!(matches!(parse(r#""{message}""#), Ok(ValueTemplate::Text(_))));
    assert!(matches!(parse(r#"{ int = "{user_id}" }"#), Ok(ValueTemplate::Integer(_))));
    for (text, json) in [
        ("7", "7"),
        ("1.5", "1.5"),
        ("true", "true"),
        ("{ null = true }", "null"),
        (r#"{ value = "{as it is}" }"#, r#""{as it is}""#),
        (r#"{ value = "${NAME}" }"#, r#""hunter2{""#),
        (r#"{ value = [1, "a", { b = false }] }"#, r#"[1,"a",{"b":false}]"#),
        (r#"{ value = { field = "x" } }"#, r#"{"field":"x"}"#),
    ] {
        assert_eq!(constant_of(text).to_string(), json, "{text}");
    }
    let field = |text: &str| match parse(text) {
        Ok(ValueTemplate::Field(field)) => (field.kind, field.missing),
        other => panic!("{text}: {other:?}"),
    };
    let null = || Missing::Default(Json::Null);
    assert_eq!(field(r#"{ field = "a" }"#), (FieldType::Any, null()));
    assert_eq!(field(r#"{ field = "a", default = "null" }"#), (FieldType::Any, null()));
    assert_eq!(
        field(r#"{ field = "a", type = "int", required = true }"#),
        (FieldType::Int, Missing::Refuse)
    );
    assert_eq!(
        field(r#"{ field = "a", type = "list", default = "omit", required = false }"#),
        (FieldType::List, Missing::Omit)
    );
    assert_eq!(
        field(r#"{ field = "a", default = { value = "null" } }"#),
        (FieldType::Any, Missing::Default("null".into()))
    );
    assert_eq!(
        field(r#"{ field = "a", default = 3 }"#),
        (FieldType::Any, Missing::Default(3.into()))
    );
}

#[test]
fn tables_and_lists_hold_values_at_any_depth() {
    let Ok(ValueTemplate::Object(members)) = parse(
        r#"{ a = {}, b = [], c = [{ d = "{message}" }, { spread = "s" }, [1]], type = "t", value = 1 }"#,
    ) else {
        panic!("an object")
    };
    let names: Vec<&str> = members.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["a", "b", "c", "type", "value"]);
    let ValueTemplate::List(items) = &members[2].1 else { panic!("{members:?}") };
    let [ListItem::One(ValueTemplate::Object(inner)), ListItem::Spread(spread), _] = &items[..]
    else {
        panic!("{items:?}")
    };
    assert!(matches!(&inner[..], [(name, ValueTemplate::Text(_))] if name == "d"));
    let expected = ClientField { name: "s".into(), kind: FieldType::List, missing: Missing::Omit };
    assert_eq!(*spread, expected);
    // Only Celery's reader gives these a meaning.
    let marked = r#"{ value = { __type__ = "datetime", __value__ = "x" } }"#;
    assert!(parse_for(marked, ReadBy::HttpServer).is_ok());
    assert!(parse_for(r#"{ __type__ = "{message}" }"#, ReadBy::HttpServer).is_ok());
}

#[test]
fn mistakes_are_reported_where_they_are() {
    for (text, key, part) in [
        (r#""{message""#, "x", "brace"),
        ("2026-01-01", "x", "dates as text"),
        ("{ null = false }", "x", "{ null = true }"),
        ("{ null = true, value = 1 }", "x", "only one of"),
        ("{ int = 7 }", "x", "int as"),
        (r#"{ int = "{" }"#, "x.int", "brace"),
        ("{ value = nan }", "x.value", "finite"),
        ("[1, { a = inf }]", "x[1].a", "finite"),
        ("{ value = [2026-01-01] }", "x.value[0]", "date"),
        (r#"{ value = { __type__ = "datetime", __value__ = "x" } }"#, "x.value", "__type__"),
        (r#"{ a = { __type__ = "{message}" } }"#, "x.a", "__type__"),
        (r#"[{ content = "{message" }]"#, "x[0].content", "brace"),
        (r#"{ field = "" }"#, "x", "name of a field"),
        (r#"{ field = "a", defualt = "null" }"#, "x", r#"did you mean "default""#),
        (r#"{ field = "price", op = 3 }"#, "x", "{ value = { field = … } }"),
        (r#"{ field = "a", type = "string" }"#, "x", "type as"),
        (r#"{ a = { field = "a", default = "none" } }"#, "x.a", "default as"),
        (r#"{ field = "a", default = "null", required = true }"#, "x", "not both"),
        (r#"{ field = "a", required = 1 }"#, "x", "true or false"),
        (r#"{ spread = "a" }"#, "x", "in a list"),
        (r#"[{ spread = 1 }]"#, "x[0]", "name of a field"),
        (r#"[{ spread = "a", type = "list" }]"#, "x[0]", "unknown key"),
        (r#"[[{ spread = "a", required = "yes" }]]"#, "x[0][0]", "true or false"),
        (r#"{ a = ["${MISSING}"] }"#, "x.a[0]", "MISSING is not set"),
        // What a variable holds is never shown.
        (r#"{ a = "${NAME}" }"#, "x.a", "brace"),
    ] {
        let mistakes = parse(text).expect_err(text);
        let [mistake] = &mistakes[..] else { panic!("{text}: {mistakes:?}") };
        assert!(mistake.starts_with(&format!("{key}: ")), "{text}: {mistake}");
        assert!(mistake.contains(part) && !mistake.contains("hunter2"), "{text}: {mistake}");
    }
    let mistakes = parse(r#"{ a = "{", b = [nan, { field = 1 }] }"#).unwrap_err();
    assert_eq!(mistakes.len(), 3, "{mistakes:?}");
}
