//! Each dialect's way to write the same reply, and a gateway in front of all of them.

use std::collections::HashMap;
use std::fmt::Write;

use serde_json::{Value, json};

use super::SSE;
use crate::rig::upstream::Recorded;
use crate::rig::{Client, Gateway, Reply, Settings, Upstream};

pub const NDJSON: &str = "application/x-ndjson";

/// How one API writes the reply "Hi".
#[derive(Clone, Copy)]
pub struct Api {
    pub dialect: &'static str,
    pub content_type: &'static str,
    /// What comes before the first text.
    pub begin: &'static str,
    /// An event with the text "Hi", in which `Hi` occurs once.
    pub text: &'static str,
    /// What proves the end.
    pub proof: &'static str,
    pub finish_reason: Option<&'static str>,
    /// Whether what follows the proof is still of the reply, such as the text of a second run.
    pub may_go_on: bool,
    /// An error in the middle of the stream, whose text is "Busy".
    pub error: &'static str,
    pub code: Option<&'static str>,
    /// The whole reply as one JSON value; empty if the API has none.
    pub whole: &'static str,
    /// The body of a status 400 whose text is "No model.", and its code.
    pub refusal: (&'static str, Option<&'static str>),
}

pub const ALL: [Api; 9] = [
    Api {
        dialect: "events",
        content_type: SSE,
        begin: "data: {\"event\":\"processing_started\"}\n\n",
        text: "data: Hi\n\n",
        proof: "data: {\"event\":\"complete\",\"finish_reason\":\"stop\"}\n\n",
        finish_reason: Some("stop"),
        may_go_on: false,
        error: "event: error\ndata: {\"message\":\"Busy\",\"code\":\"overloaded\"}\n\n",
        code: None,
        whole: "",
        refusal: (r#"{"detail":"No model."}"#, None),
    },
    Api {
        dialect: "openai-chat",
        content_type: SSE,
        // Azure begins with what its filter found, and others with the role.
        begin: "data: {\"choices\":[],\"prompt_filter_results\":[{\"prompt_index\":0}]}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n",
        text: "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]}\n\n",
        proof: "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        finish_reason: Some("stop"),
        may_go_on: false,
        error: "data: {\"error\":{\"message\":\"Busy\",\"type\":\"server_error\",\"code\":\"overloaded\"},\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"error\"}]}\n\n",
        code: Some("overloaded"),
        whole: r#"{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}"#,
        refusal: (
            r#"{"error":{"message":"No model.","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#,
            Some("model_not_found"),
        ),
    },
    Api {
        dialect: "openai-responses",
        content_type: SSE,
        begin: "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"status\":\"in_progress\",\"error\":null}}\n\n",
        text: "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\n",
        proof: "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\"}}\n\n",
        finish_reason: Some("stop"),
        may_go_on: false,
        error: "event: error\ndata: {\"type\":\"error\",\"code\":\"overloaded\",\"message\":\"Busy\",\"param\":null}\n\n",
        code: Some("overloaded"),
        whole: r#"{"object":"response","status":"completed","error":null,"output":[{"type":"message","content":[{"type":"output_text","text":"Hi"}]}]}"#,
        refusal: (
            r#"{"error":{"message":"No model.","type":"invalid_request_error","param":"model","code":null}}"#,
            Some("invalid_request_error"),
        ),
    },
    Api {
        dialect: "anthropic",
        content_type: SSE,
        begin: "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"content\":[],\"stop_reason\":null}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
        text: "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hi\"}}\n\n",
        proof: "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        finish_reason: Some("stop"),
        may_go_on: false,
        error: "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded\",\"message\":\"Busy\"},\"request_id\":\"r\"}\n\n",
        code: Some("overloaded"),
        whole: r#"{"type":"message","role":"assistant","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn"}"#,
        refusal: (
            r#"{"type":"error","error":{"type":"not_found_error","message":"No model."},"request_id":"r"}"#,
            Some("not_found_error"),
        ),
    },
    Api {
        dialect: "gemini",
        content_type: SSE,
        // Some models give a reason with each part.
        begin: "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}]},\"finishReason\":\"STOP\"}]}\n\n",
        text: "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hi\"}]}}]}\n\n",
        proof: "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}]},\"finishReason\":\"STOP\"}]}\n\n",
        finish_reason: Some("stop"),
        may_go_on: true,
        error: "{\n  \"error\": {\n    \"code\": 503,\n    \"message\": \"Busy\",\n    \"status\": \"overloaded\"\n  }\n}\n",
        code: Some("overloaded"),
        whole: r#"[{"candidates":[{"content":{"parts":[{"text":"Hi"}]},"finishReason":"STOP"}]}]"#,
        refusal: (
            r#"[{"error":{"code":404,"message":"No model.","status":"NOT_FOUND","details":[]}}]"#,
            Some("NOT_FOUND"),
        ),
    },
    Api {
        dialect: "ollama",
        content_type: NDJSON,
        begin: "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":false}\n",
        text: "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"Hi\"},\"done\":false}\n",
        proof: "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\"}\n",
        finish_reason: Some("stop"),
        may_go_on: false,
        error: "{\"error\":\"Busy\"}\n",
        code: None,
        whole: r#"{"model":"m","message":{"role":"assistant","content":"Hi"},"done":true,"done_reason":"stop"}"#,
        refusal: (r#"{"error":"No model."}"#, None),
    },
    Api {
        dialect: "ai-sdk",
        content_type: SSE,
        begin: "data: {\"type\":\"start\",\"messageId\":\"m\"}\n\ndata: {\"type\":\"start-step\"}\n\ndata: {\"type\":\"text-start\",\"id\":\"0\"}\n\n",
        text: "data: {\"type\":\"text-delta\",\"id\":\"0\",\"delta\":\"Hi\"}\n\n",
        proof: "data: {\"type\":\"text-end\",\"id\":\"0\"}\n\ndata: {\"type\":\"finish-step\"}\n\ndata: {\"type\":\"finish\",\"finishReason\":\"stop\"}\n\n",
        finish_reason: Some("stop"),
        may_go_on: true,
        error: "data: {\"type\":\"error\",\"errorText\":\"Busy\"}\n\n",
        code: None,
        whole: r#"{"id":"m","role":"assistant","parts":[{"type":"step-start"},{"type":"text","text":"Hi","state":"done"}]}"#,
        refusal: (r#"{"error":"No model."}"#, None),
    },
    Api {
        dialect: "ag-ui",
        content_type: SSE,
        begin: "data: {\"type\":\"RUN_STARTED\",\"threadId\":\"t\",\"runId\":\"r\"}\n\ndata: {\"type\":\"TEXT_MESSAGE_START\",\"messageId\":\"m\",\"role\":\"assistant\"}\n\n",
        text: "data: {\"type\":\"TEXT_MESSAGE_CONTENT\",\"messageId\":\"m\",\"delta\":\"Hi\"}\n\n",
        proof: "data: {\"type\":\"TEXT_MESSAGE_END\",\"messageId\":\"m\"}\n\ndata: {\"type\":\"RUN_FINISHED\",\"threadId\":\"t\",\"runId\":\"r\"}\n\n",
        finish_reason: Some("stop"),
        may_go_on: true,
        error: "data: {\"type\":\"RUN_ERROR\",\"message\":\"Busy\",\"code\":\"overloaded\"}\n\n",
        code: Some("overloaded"),
        whole: r#"[{"type":"RUN_STARTED"},{"type":"TEXT_MESSAGE_CHUNK","messageId":"m","delta":"Hi"},{"type":"RUN_FINISHED"}]"#,
        refusal: (r#"{"detail":[{"type":"missing","loc":["body"],"msg":"No model."}]}"#, None),
    },
    Api {
        dialect: "langgraph",
        content_type: SSE,
        begin: "event: metadata\ndata: {\"run_id\":\"r\",\"attempt\":1}\n\n",
        text: "event: messages\ndata: [{\"type\":\"AIMessageChunk\",\"id\":\"m\",\"content\":\"Hi\",\"chunk_position\":null},{\"langgraph_node\":\"agent\"}]\n\n",
        proof: "event: messages\ndata: [{\"type\":\"AIMessageChunk\",\"id\":\"m\",\"content\":\"\",\"chunk_position\":\"last\"},{}]\n\nevent: end\ndata: null\n\n",
        finish_reason: Some("stop"),
        may_go_on: false,
        error: "event: error\ndata: {\"error\":\"overloaded\",\"message\":\"Busy\"}\n\n",
        code: Some("overloaded"),
        whole: r#"{"messages":[{"type":"human","id":"h","content":"hello"},{"type":"ai","id":"m","content":"Hi"}]}"#,
        refusal: (r#"{"detail":"No model."}"#, None),
    },
];

impl Api {
    pub fn is_of_events(&self) -> bool {
        self.dialect == "events"
    }

    pub fn is_stream(&self) -> bool {
        self.content_type == SSE
    }

    /// The text event with another text, as it is escaped in JSON.
    pub fn text_of(&self, text: &str) -> String {
        self.text.replace("Hi", text)
    }

    /// What is published at its regular end.
    pub fn complete(&self) -> Value {
        json!({"event": "complete", "finish_reason": self.finish_reason})
    }

    /// What is published of its error.
    pub fn failed(&self) -> Value {
        let mut event = json!({"event": "error", "code": "task_failed", "error": "Busy"});
        if let Some(code) = self.code {
            event["upstream_code"] = json!(code);
        }
        if self.is_of_events() {
            event["code"] = json!("overloaded");
            event["message"] = json!("Busy");
        }
        event
    }
}

/// A route of the gateway, in front of one API.
#[derive(Clone, Copy)]
pub struct Route {
    pub name: &'static str,
    pub api: Api,
    /// The dialect has to be found out.
    pub is_auto: bool,
}

/// All APIs by name, and those of them that can be found out once more.
pub fn routes() -> Vec<Route> {
    let named = ALL.iter().map(|api| Route { name: api.dialect, api: *api, is_auto: false });
    let found = ALL.iter().filter(|api| !api.is_of_events()).map(|api| Route {
        name: format!("auto-{}", api.dialect).leak(),
        api: *api,
        is_auto: true,
    });
    named.chain(found).collect()
}

pub struct Apis {
    pub gateway: Gateway,
    pub upstream: Upstream,
}

impl Apis {
    /// The upstream answers by route and by the text of the message.
    pub async fn start(
        more: &str,
        answer: impl Fn(&Route, &str) -> Reply + Clone + Send + Sync + 'static,
    ) -> Self {
        let routes: HashMap<_, _> = routes().into_iter().map(|it| (it.name, it)).collect();
        let upstream = Upstream::start(move |request: &Recorded| {
            let route = &routes[request.path.trim_start_matches('/')];
            answer(route, request.json()["message"].as_str().expect("a text"))
        })
        .await;
        Self { gateway: Gateway::start(settings(&upstream, more)).await, upstream }
    }

    pub async fn connect(&self, route: &Route) -> Client {
        Client::connected(&self.gateway, &format!("/{}/1", route.name)).await.0
    }
}

fn settings(upstream: &Upstream, more: &str) -> Settings {
    let mut settings = Settings::new();
    for route in routes() {
        let Route { name, api, is_auto } = route;
        let mut lines = String::new();
        writeln!(lines, "path = \"/{name}/{{conversation_id}}\"\nchannel = \"{name}\"").unwrap();
        writeln!(lines, "upstream = \"{name}\"\nauth = [\"anonymous\"]\n[route.limits]").unwrap();
        for limit in ["messages_per_user", "messages_per_connection", "connects_per_user"] {
            writeln!(lines, "{limit} = \"100000/1s\"").unwrap();
        }
        lines += "connections_per_user = 1000\ngenerations_per_user = 1000\n";
        let dialect = if is_auto { "auto" } else { api.dialect };
        let url = upstream.url(&format!("/{name}"));
        let lines_of =
            format!("kind = \"http\"\nurl = {url:?}\ndialect = \"{dialect}\"\nretries = 0\n{more}");
        settings = settings.route(&lines).upstream(name, &lines_of);
    }
    settings
}

/// Asks, and returns what is published up to the end. Only what the tests compare is left of the events.
pub async fn ask(client: &mut Client, case: &str) -> Vec<Value> {
    client.send_json(&json!({"message": case})).await;
    client.next_event("task_queued").await;
    let mut events = Vec::new();
    loop {
        let mut event = client.next_json().await;
        let members = event.as_object_mut().expect("an object");
        for name in ["task_id", "offset", "epoch", "raw_finish_reason"] {
            members.remove(name);
        }
        if event["event"] == "processing_started" {
            continue;
        }
        events.push(event);
        let name = &events[events.len() - 1]["event"];
        if ["complete", "error", "cancelled"].iter().any(|end| name == end) {
            return events;
        }
    }
}

pub fn answer(content_type: &str, body: impl Into<bytes::Bytes>) -> Reply {
    let headers = vec![("content-type", content_type.to_owned())];
    Reply::Answer { status: 200, headers, body: body.into() }
}
