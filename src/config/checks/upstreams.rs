//! Rules of upstreams and the routes that use them: every placeholder has a value, and no credential of the gateway is
//! forwarded.

use hyper::header::AUTHORIZATION;

use super::{Routes, Upstreams, filled_by_all, key_start, numbered, quoted};
use crate::config::celery::PLACEHOLDERS;
use crate::config::section::Section;
use crate::config::{
    AuthSource, CeleryTask, CeleryUpstream, ForwardedNames, HttpUpstream, RequestBody, Route,
    Tokens, UpstreamKind,
};

/// Checks that every route can fill the placeholders of what it uses.
pub(in crate::config) fn placeholders(
    root: &mut Section<'_>,
    tokens: Option<&Tokens>,
    routes: &Routes,
    upstreams: &Upstreams,
) {
    if let Some(binding) = tokens.and_then(|tokens| tokens.binding.as_ref()) {
        let takes_tokens = |route: &Route| route.auth.contains(&AuthSource::ConnectionToken);
        filled_by_all(root, "tokens.binding", binding, routes, takes_tokens, &["user_id"]);
    }
    for upstream in upstreams.values().flatten() {
        let uses = |route: &Route| route.upstream.as_ref() == Some(&upstream.name);
        let (name, template) = match &upstream.kind {
            UpstreamKind::Http(_) | UpstreamKind::WebSocket(_) => {
                for (index, url) in upstream.urls().iter().enumerate() {
                    let name = match upstream.urls().len() {
                        1 => "url".to_owned(),
                        _ => format!("urls[{index}]"),
                    };
                    let key = format!("upstream.{}.{name}", upstream.name);
                    let always = match &upstream.kind {
                        // A socket is opened before there is a message.
                        UpstreamKind::WebSocket(_) => &["user_id", "channel"][..],
                        _ => &PLACEHOLDERS,
                    };
                    filled_by_all(root, &key, url, routes, uses, always);
                }
                if let UpstreamKind::Http(http) = &upstream.kind {
                    request(root, &upstream.name, http, routes);
                }
                continue;
            }
            UpstreamKind::RedisStream(queue) | UpstreamKind::RedisList(queue) => {
                key_start(root, &format!("upstream.{}.key", upstream.name), &queue.key);
                ("key", &queue.key)
            }
            UpstreamKind::Celery(celery) => {
                arguments(root, &upstream.name, celery, routes);
                continue;
            }
        };
        let key = format!("upstream.{}.{name}", upstream.name);
        filled_by_all(root, &key, template, routes, uses, &["user_id", "channel"]);
    }
}

/// Checks what an HTTP upstream is sent.
fn request(root: &mut Section<'_>, name: &str, http: &HttpUpstream, routes: &Routes) {
    let uses = |route: &Route| route.upstream.as_deref() == Some(name);
    if let RequestBody::Template(body) = &http.request.body {
        body.for_each_text(&format!("upstream.{name}.body"), &mut |key, template| {
            filled_by_all(root, key, template, routes, uses, &PLACEHOLDERS);
        });
    }
    forwarded_credentials(root, name, &http.request.forward, routes);
}

/// The header by which clients sign in to the gateway is not forwarded.
fn forwarded_credentials(
    root: &mut Section<'_>,
    upstream: &str,
    forward: &ForwardedNames,
    routes: &Routes,
) {
    if !forward.headers.contains(&AUTHORIZATION) {
        return;
    }
    let signs_in = numbered(routes).find(|(_, route)| {
        route.upstream.as_deref() == Some(upstream) && route.auth.contains(&AuthSource::Bearer)
    });
    if let Some((index, _)) = signs_in {
        let fix = format!(
            "by this header clients of route[{index}] sign in to the gateway; remove it, or \"bearer\" from the auth of the route"
        );
        let key = format!("upstream.{upstream}.forward_headers");
        root.mistake(&key, Some(quoted("authorization")), fix);
    }
}

/// Checks the placeholders in the tasks of a Celery upstream.
fn arguments(root: &mut Section<'_>, name: &str, celery: &CeleryUpstream, routes: &Routes) {
    let uses = |route: &Route| route.upstream.as_deref() == Some(name);
    let mut check = |key: &str, task: &CeleryTask| {
        for (argument, value) in &task.kwargs {
            value.for_each_text(&format!("{key}.kwargs.{argument}"), &mut |key, template| {
                filled_by_all(root, key, template, routes, uses, &PLACEHOLDERS);
            });
        }
    };
    check(&format!("upstream.{name}"), &celery.default_task);
    for (index, (_, task)) in celery.tasks.iter().enumerate() {
        check(&format!("upstream.{name}.tasks[{index}]"), task);
    }
    if let Some(track) = &celery.track {
        let key = format!("upstream.{name}.track.key");
        key_start(root, &key, &track.key);
        filled_by_all(root, &key, &track.key, routes, uses, &["user_id", "channel"]);
    }
}
