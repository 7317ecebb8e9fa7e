use std::collections::BTreeSet;

use serde_json::Value;

use super::super::code::Code;
use super::super::resource::{Found, Resource, TABLE};
use super::super::{api, explain, publish};
use super::*;
use crate::protocol::{ChannelName, Position};

fn description() -> Value {
    serde_json::from_str(DESCRIPTION).expect("JSON")
}

fn is_open(resource: &Resource) -> bool {
    !matches!(resource, Resource::Api(_))
}

/// Each operation with its method and path.
fn operations(description: &Value) -> Vec<(String, String, &Value)> {
    let paths = description["paths"].as_object().expect("paths").iter();
    paths
        .flat_map(|(path, item)| {
            let methods = item.as_object().expect("methods").iter();
            methods.map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation))
        })
        .collect()
}

#[test]
fn every_call_is_described_and_no_other() {
    let description = description();
    let operations = operations(&description);
    let described: BTreeSet<_> =
        operations.iter().map(|(method, path, _)| (method.as_str(), path.as_str())).collect();
    let served: BTreeSet<_> = TABLE.iter().map(|entry| (entry.method, entry.path)).collect();
    assert_eq!(described, served);
    let ids: BTreeSet<_> =
        operations.iter().map(|(_, _, operation)| operation["operationId"].as_str()).collect();
    assert_eq!(ids.len(), TABLE.len(), "each has a name of its own");
}

#[test]
fn what_needs_a_key_says_so() {
    let description = description();
    for (method, path, operation) in operations(&description) {
        let Found::Resource(resource) = Resource::find(&method, &path) else {
            panic!("nothing at {method} {path}");
        };
        let responses = operation["responses"].as_object().expect("responses");
        let is_refused = |status: &str| responses.contains_key(status);
        if is_open(&resource) {
            assert_eq!(operation["security"], serde_json::json!([]), "{path}");
        } else {
            assert!(operation.get("security").is_none(), "{path}: as everywhere");
            assert!(["400", "401", "403"].into_iter().all(is_refused), "{path}");
        }
        let takes_a_body = operation.get("requestBody").is_some();
        assert_eq!(takes_a_body, method == "POST", "{path}");
        assert_eq!(takes_a_body, is_refused("413") && is_refused("408"), "{path}");
    }
}

#[test]
fn every_error_is_described_and_no_other() {
    let codes = &description()["components"]["schemas"]["Error"]["properties"]["error"]["properties"]
        ["code"]["enum"];
    let described: BTreeSet<_> =
        codes.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(described, Code::ALL.iter().map(|code| code.label()).collect());
}

#[test]
fn the_page_has_every_call_and_every_error() {
    let page = include_str!("../../../docs/server-api.md");
    for entry in TABLE {
        assert!(page.contains(entry.path), "{} {}", entry.method, entry.path);
    }
    for code in Code::ALL {
        assert!(page.contains(&format!("`{}`", code.label())), "{}", code.label());
    }
}

#[test]
fn bounds_are_those_of_the_code() {
    let description = description();
    for (pointer, bound) in [
        ("parameters/Limit/schema/maximum", api::MAX_LIMIT as u64),
        ("parameters/Limit/schema/default", api::DEFAULT_LIMIT as u64),
        ("parameters/UserFilter/schema/maxLength", api::MAX_USER_BYTES as u64),
        ("parameters/UserId/schema/maxLength", api::MAX_USER_BYTES as u64),
        ("parameters/RouteFilter/schema/maxLength", api::MAX_ROUTE_BYTES as u64),
        ("parameters/Prefix/schema/maxLength", ChannelName::MAX_BYTES as u64),
        ("schemas/ChannelName/maxLength", ChannelName::MAX_BYTES as u64),
        ("schemas/DebugSeconds/maximum", crate::control::MAX_DEBUG_SECONDS.into()),
        ("schemas/Offset/maximum", Position::MAX_OFFSET),
        ("schemas/PublishMany/properties/publications/maxItems", publish::MAX_PUBLICATIONS as u64),
        ("schemas/IdempotencyKey/maxLength", publish::MAX_KEY_BYTES as u64),
        ("schemas/CloseText/maxLength", crate::control::MAX_REASON_BYTES as u64),
        ("schemas/ConnectionList/properties/connections/maxItems", api::MAX_LIMIT as u64),
        ("schemas/ChannelList/properties/channels/maxItems", api::MAX_LIMIT as u64),
        ("schemas/Explanation/properties/connections/maxItems", explain::MAX_CONNECTIONS as u64),
        ("schemas/Explanation/properties/generations/maxItems", explain::MAX_ROWS as u64),
        ("schemas/Explanation/properties/errors/maxItems", explain::MAX_ROWS as u64),
        ("schemas/Presence/properties/connections/maxItems", api::MAX_LIMIT as u64),
        ("schemas/History/properties/publications/maxItems", api::MAX_LIMIT as u64),
    ] {
        let found = description.pointer(&format!("/components/{pointer}"));
        assert_eq!(found.and_then(Value::as_u64), Some(bound), "{pointer}");
    }
}

#[test]
fn every_reference_leads_somewhere_and_everything_is_used() {
    let description = description();
    let mut referred = BTreeSet::new();
    collect(&description, &mut referred);
    for reference in &referred {
        let pointer = reference.strip_prefix('#').expect("within the file");
        assert!(description.pointer(pointer).is_some(), "{reference}");
    }
    for kind in ["schemas", "parameters", "responses"] {
        for name in description["components"][kind].as_object().expect("some").keys() {
            let reference = format!("#/components/{kind}/{name}");
            assert!(referred.contains(&reference), "{reference} is used by nobody");
        }
    }
}

fn collect(value: &Value, references: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            references.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| collect(value, references));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}
