//! Runs the same test on the memory engine and on a Redis server of its own.

use super::rig::{Gateway, Redis, Settings, http, until};

/// The engine that the gateways of a test share. Its Redis server runs until this is dropped.
pub struct Engine(Option<Redis>);

impl Engine {
    pub fn memory() -> Self {
        Self(None)
    }

    pub async fn redis() -> Self {
        Self(Some(Redis::start().await))
    }

    /// Starts a gateway and waits until it is connected to its engine.
    pub async fn start(&self, settings: Settings) -> Gateway {
        let gateway = Gateway::start(self.of(settings)).await;
        until("ready gateway", async || {
            (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
        })
        .await;
        gateway
    }

    /// The Redis server, if this engine is Redis.
    pub fn server(&self) -> Option<&Redis> {
        self.0.as_ref()
    }

    pub fn server_mut(&mut self) -> Option<&mut Redis> {
        self.0.as_mut()
    }

    /// The settings with this engine.
    pub fn of(&self, settings: Settings) -> Settings {
        match &self.0 {
            None => settings,
            Some(redis) => settings.redis(&redis.url()),
        }
    }
}

/// Makes two tests, `memory` and `redis`, in a module named after each function.
macro_rules! on_both_engines {
    ($($test:ident),* $(,)?) => {
        $(
            mod $test {
                use crate::engine::Engine;

                #[tokio::test]
                async fn memory() {
                    super::$test(Engine::memory()).await;
                }

                #[tokio::test]
                async fn redis() {
                    super::$test(Engine::redis().await).await;
                }
            }
        )*
    };
}
