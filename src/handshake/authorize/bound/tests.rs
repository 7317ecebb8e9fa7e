use std::time::Duration;

use url::Url;

use super::*;
use crate::protocol::UserId;

fn bound(max_in_flight: usize) -> QuestionBound {
    QuestionBound::new(&AuthorizeUrl {
        url: Url::parse("http://localhost/").unwrap(),
        timeout: Duration::from_secs(1),
        max_in_flight,
        max_in_flight_per_user: 0,
        cache: Duration::ZERO,
        signing_secret: None,
    })
}

fn client(id: i64) -> SenderKey {
    SenderKey::User(UserId::Integer(id))
}

#[tokio::test]
async fn one_client_waits_for_its_share_while_others_enter() {
    let bound = Arc::new(bound(8));
    let enter = |id| {
        let bound = Arc::clone(&bound);
        tokio::spawn(async move { bound.enter(&client(id)).await.ok() })
    };
    let first = enter(1).await.unwrap().unwrap();
    let _second = enter(1).await.unwrap().unwrap();
    let waiting = enter(1);
    let _others: Vec<_> =
        [enter(2).await, enter(2).await, enter(3).await].into_iter().map(Result::unwrap).collect();
    assert!(!waiting.is_finished());
    drop(first);
    assert!(waiting.await.unwrap().is_some());
}

#[tokio::test]
async fn the_number_that_waits_is_bounded() {
    let bound = bound(1);
    let permit = bound.enter(&client(1)).await.ok();
    let mut waiting: Vec<_> =
        (0..3).map(|_| Box::pin(async { bound.enter(&client(1)).await })).collect();
    for one in &mut waiting {
        assert!(futures_util::poll!(one).is_pending());
    }
    assert!(bound.enter(&client(1)).await.is_err(), "a quarter of 16 is entered");
    drop(permit);
    assert!(waiting.remove(0).await.is_ok());
}
