//! The OpenAPI description of the server API, `openapi.json`; tests hold it to the code.

/// The description, in OpenAPI 3.1.
pub const DESCRIPTION: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests;
