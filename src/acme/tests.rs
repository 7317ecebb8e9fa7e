use std::path::Path;

use super::*;

/// An authority that nobody can reach.
fn acme(folder: &Path) -> Acme {
    Acme {
        domains: vec!["a.test".to_owned()],
        contact: Vec::new(),
        cache_dir: folder.join("acme"),
        directory: "https://127.0.0.1:1/dir".parse().unwrap(),
        // The authorities of the system are not needed.
        directory_ca: Some(std::fs::read_to_string("tests/keys/server_tls/ca.pem").unwrap()),
    }
}

#[tokio::test]
async fn a_restart_or_another_gateway_does_not_try_again_before_the_pause_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let (acme, cache) = (acme(folder.path()), Cache::new(&acme(folder.path())));
    let mut first = Ordering::new();
    let Step { wait, is_new } = first.step(&acme, None).await;
    assert_eq!((wait, is_new), (Duration::from_secs(60), false));
    let failures = cache.failures().await;
    assert_ne!(failures, Failures::default());
    for ordering in [&mut first, &mut Ordering::new()] {
        let Step { wait, .. } = ordering.step(&acme, None).await;
        assert!(wait <= Duration::from_secs(60) && !wait.is_zero(), "{wait:?}");
        assert_eq!(cache.failures().await, failures, "it has tried again");
    }
    Ordering::new().forget_failures(&acme).await;
    assert_eq!(cache.failures().await, Failures::default());
    let Step { wait, .. } = first.step(&acme, None).await;
    assert_eq!(wait, Duration::from_secs(60), "it has tried");
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_tried_ever_more_seldom_too() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("acme"), "a file").unwrap();
    let (acme, mut ordering) = (acme(folder.path()), Ordering::new());
    let Step { wait, .. } = ordering.step(&acme, None).await;
    assert_eq!(wait, Duration::from_secs(60));
    assert!(ordering.unwritten.remaining(clock::unix_seconds()).is_some());
    let cache = Cache::new(&acme);
    assert_eq!(ordering.add_failure(&cache, None).await, Duration::from_secs(120));
}

#[tokio::test]
async fn one_gateway_orders_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let acme = acme(folder.path());
    let cache = Cache::new(&acme);
    let lock = cache.lock().await.unwrap().expect("nobody has it");
    let Step { wait, .. } = Ordering::new().step(&acme, None).await;
    assert_eq!(wait, PERIOD_OF_OTHERS);
    drop(lock);
    let Step { wait, .. } = Ordering::new().step(&acme, None).await;
    assert_eq!(wait, Duration::from_secs(60), "it has tried");
}
