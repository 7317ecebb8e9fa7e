use super::*;

/// Connects according to `outcomes`: `None` fails, and `Some` connects and loses the connection after that time.
struct Script {
    outcomes: Vec<Option<Duration>>,
    health: Option<Health>,
    events: std::cell::RefCell<Vec<String>>,
    pauses: Vec<Duration>,
    shutdown: Shutdown,
}

impl Supervised for Script {
    type Connection = Duration;

    async fn connect(&mut self, health: &Health) -> Result<Duration, ConnectionError> {
        if self.outcomes.is_empty() {
            self.shutdown.force();
            return std::future::pending().await;
        }
        self.health = Some(health.clone());
        self.outcomes.remove(0).ok_or_else(|| "refused".into())
    }

    fn links_to_check(&self, _: &Duration) -> Vec<MonitoredLink> {
        Vec::new()
    }

    async fn serve(
        &mut self,
        held: Duration,
        lost: BoxFuture<'_, ConnectionError>,
    ) -> ConnectionError {
        let health = self.health.take().unwrap();
        tokio::spawn(async move {
            sleep(held).await;
            health.give_up("first");
            health.give_up("later");
        });
        lost.await
    }

    fn disconnected(&mut self) {
        self.events.borrow_mut().push("disconnected".to_owned());
    }

    fn record(&self, event: ConnectionEvent<'_>) {
        self.events.borrow_mut().push(match event {
            ConnectionEvent::Connected { downtime } => {
                format!("connected {}", downtime.is_some())
            }
            ConnectionEvent::ConnectFailed { attempt, reason } => {
                format!("failed {attempt} {reason}")
            }
            ConnectionEvent::Lost { reason } => format!("lost {reason}"),
        });
    }

    async fn pause(&mut self, pause: Duration) {
        self.pauses.push(pause);
        sleep(pause).await;
    }
}

async fn run(outcomes: Vec<Option<Duration>>) -> Script {
    let (events, shutdown) = (std::cell::RefCell::default(), Shutdown::new());
    let mut script =
        Script { outcomes, health: None, events, pauses: Vec::new(), shutdown: shutdown.clone() };
    supervise(&mut script, &shutdown).await;
    script
}

#[tokio::test]
async fn every_step_is_recorded_in_order() {
    let script = run(vec![None, None, Some(Duration::ZERO), None]).await;
    assert_eq!(
        *script.events.borrow(),
        [
            "disconnected",
            "failed 0 refused",
            "disconnected",
            "failed 1 refused",
            "connected false",
            "disconnected",
            "lost first",
            "disconnected",
            "failed 0 refused",
        ]
    );
}

#[tokio::test]
async fn only_a_stable_connection_resets_the_back_off() {
    let (brief, long) = (Duration::from_millis(10), CHECK_INTERVAL + Duration::from_millis(200));
    let script = run(vec![None, None, None, Some(brief), Some(long), None]).await;
    let first = Duration::from_millis(50);
    assert!(script.pauses[3] > 2 * first, "{:?}", script.pauses);
    assert!(script.pauses[4] <= first, "{:?}", script.pauses);
}
