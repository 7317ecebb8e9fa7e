//! The types of the checked settings, one file per group of sections.

mod celery;
mod engine;
mod identity;
mod route;
mod server;
mod upstream;

pub use celery::*;
pub use engine::*;
pub use identity::*;
pub use route::*;
pub use server::*;
pub use upstream::*;

use super::{RedisUrl, Secret};
