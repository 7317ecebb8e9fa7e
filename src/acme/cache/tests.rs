use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn cache(folder: &Path) -> Cache {
    Cache::new(&Acme {
        domains: vec!["a.test".to_owned(), "b.test".to_owned()],
        contact: Vec::new(),
        cache_dir: folder.join("acme"),
        directory: "https://ca.test/dir".parse().unwrap(),
        directory_ca: None,
    })
}

#[tokio::test]
async fn what_is_written_is_for_the_gateway_alone() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    let lock = cache.lock().await.unwrap().expect("nobody else has it");
    assert!(cache.lock().await.unwrap().is_none(), "another has it");
    drop(lock);
    assert!(cache.lock().await.unwrap().is_some());
    assert_eq!(cache.account().await.unwrap(), None);
    cache.write_account("{}".to_owned()).await.unwrap();
    cache.write_certificate("PEM".to_owned()).await.unwrap();
    cache.write_certificate("PEM 2".to_owned()).await.unwrap();
    cache.write_challenge("a.test", &[7; 32]).await.unwrap();
    assert_eq!(cache.account().await.unwrap().as_deref(), Some("{}"));
    assert_eq!(cache.certificate().await.as_deref(), Some("PEM 2"));
    let folder = folder.path().join("acme");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 4, "{files:?}");
    assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
}

#[tokio::test]
async fn only_wanted_proofs_for_names_of_the_config_are_given() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    let _lock = cache.lock().await.unwrap();
    let digest: [u8; 32] = std::array::from_fn(|at| at as u8 * 3);
    cache.write_challenge("a.test", &digest).await.unwrap();
    cache.write_challenge("c.test", &digest).await.unwrap();
    assert_eq!(cache.challenge("a.test"), Some(digest));
    assert_eq!(cache.challenge("b.test"), None);
    assert_eq!(cache.challenge("c.test"), None, "not in the config");
    cache.remove_challenges().await;
    assert_eq!(cache.challenge("a.test"), None);
}

#[tokio::test]
async fn what_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("acme"), "a file").unwrap();
    let error = cache(folder.path()).lock().await.err().unwrap();
    assert!(error.starts_with("cache_dir in ") && error.contains("/acme: "), "{error}");
}

#[test]
fn a_malformed_digest_is_none() {
    assert_eq!(digest(&"0a".repeat(32)), Some([10; 32]));
    assert_eq!(digest(&format!("{}\n", "0a".repeat(32))), Some([10; 32]));
    for wrong in ["", "0a", &"0".repeat(63), &"0g".repeat(32), &"é".repeat(32)] {
        assert_eq!(digest(wrong), None, "{wrong}");
    }
}
