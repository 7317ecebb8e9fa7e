use super::*;

fn parse(text: &str) -> Result<Kwarg, String> {
    let table: Table = format!("x = {text}").parse().expect("valid TOML");
    kwarg(&table["x"]).map_err(|error| match error {
        ValueError::WrongKind => "kind".to_owned(),
        ValueError::Rule(fix) | ValueError::Quoting(fix) => fix,
    })
}

fn constant_of(text: &str) -> Json {
    match parse(text) {
        Ok(Kwarg::Constant(value)) => value,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn arguments_are_typed() {
    assert!(matches!(parse(r#""{message}""#), Ok(Kwarg::Text(_))));
    assert!(matches!(parse(r#"{ int = "{user_id}" }"#), Ok(Kwarg::Integer(_))));
    for (text, json) in [
        ("7", "7"),
        ("1.5", "1.5"),
        ("true", "true"),
        ("{ null = true }", "null"),
        (r#"{ value = "{as it is}" }"#, r#""{as it is}""#),
        (r#"{ value = [1, "a", { b = false }] }"#, r#"[1,"a",{"b":false}]"#),
    ] {
        assert_eq!(constant_of(text).to_string(), json, "{text}");
    }
    let field = |text: &str| match parse(text) {
        Ok(Kwarg::Field(field)) => (field.kind, field.missing),
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
fn invalid_arguments_are_reported() {
    for (text, part) in [
        (r#""{message""#, "brace"),
        ("[1]", "kind"),
        ("2026-01-01", "kind"),
        ("{ null = false }", "kind"),
        ("{ null = true, value = 1 }", "kind"),
        ("{}", "kind"),
        ("{ int = 7 }", "kind"),
        (r#"{ int = "{" }"#, "int as"),
        ("{ value = nan }", "finite"),
        ("{ value = [2026-01-01] }", "date"),
        (r#"{ value = { __type__ = "datetime", __value__ = "x" } }"#, "__type__"),
        (r#"{ field = "" }"#, "name of a field"),
        (r#"{ field = "a", defualt = "null" }"#, r#"did you mean "default""#),
        (r#"{ field = "a", type = "string" }"#, "type as"),
        (r#"{ field = "a", default = "none" }"#, "default as"),
        (r#"{ field = "a", default = "null", required = true }"#, "not both"),
        (r#"{ field = "a", required = 1 }"#, "true or false"),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}
