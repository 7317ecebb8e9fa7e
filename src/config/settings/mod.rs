//! The types of the checked settings, one file per group of sections.

mod celery;
mod engine;
mod http_request;
mod identity;
mod route;
mod server;
mod upstream;
mod value_template;

pub use celery::*;
pub use engine::*;
pub use http_request::*;
pub use identity::*;
pub use route::*;
pub use server::*;
pub use upstream::*;
pub use value_template::*;

use super::{RedisUrl, Secret};
