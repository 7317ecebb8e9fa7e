//! What is kept in `cache_dir`, which several gateways may share: the account, the certificate, and the proofs that are wanted
//! now.
//!
//! Invariant: a file is complete from the moment it has its name, and nobody but the gateway's user may read it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use uuid::Uuid;

use super::schedule::Failures;
use crate::config::Acme;

/// The most bytes of a file that are read.
const MAX_BYTES: u64 = 1024 * 1024;

/// The files of one account and one list of names. Cheap to clone.
#[derive(Clone)]
pub(super) struct Cache(Arc<Acme>);

/// Held by the one gateway that may order. Given back when it is dropped, and by the system when the process ends.
pub(super) struct Lock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl Cache {
    pub fn new(acme: &Acme) -> Self {
        Self(Arc::new(acme.clone()))
    }

    /// Becomes the one that orders, and makes the directory if it is not there. `None` = another gateway is.
    pub async fn lock(&self) -> Result<Option<Lock>, String> {
        let folder = self.0.cache_dir.clone();
        self.blocking("cache_dir", move || {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            let file = writable().open(folder.join("lock"))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(Some(Lock(file))),
                Err(Errno::WOULDBLOCK) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// The account as it was written; `None` = there is none.
    pub async fn account(&self) -> Result<Option<String>, String> {
        let file = self.0.account_file();
        self.blocking("the account", move || match read(&file) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    pub async fn write_account(&self, text: String) -> Result<(), String> {
        let file = self.0.account_file();
        self.blocking("the account", move || write(&file, &text)).await
    }

    /// Forgets an account that the authority does not know.
    pub async fn remove_account(&self) -> Result<(), String> {
        let file = self.0.account_file();
        self.blocking("the account", move || fs::remove_file(file)).await
    }

    /// The certificate and its key in PEM, if there is a file that can be read.
    pub async fn certificate(&self) -> Option<String> {
        let file = self.0.certificate_file();
        self.blocking("the certificate", move || read(&file)).await.ok()
    }

    /// `text`: the private key and the chain in PEM. One file, so that both are replaced at once.
    pub async fn write_certificate(&self, text: String) -> Result<(), String> {
        let file = self.0.certificate_file();
        self.blocking("the certificate", move || write(&file, &text)).await
    }

    /// What has failed. Nothing if there is no file that can be read.
    pub async fn failures(&self) -> Failures {
        let file = self.0.failures_file();
        let text = self.blocking("the failures", move || read(&file)).await;
        text.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    pub async fn write_failures(&self, failures: &Failures) -> Result<(), String> {
        let file = self.0.failures_file();
        let text = serde_json::to_string(failures).map_err(|error| error.to_string())?;
        self.blocking("the failures", move || write(&file, &text)).await
    }

    /// Forgets what has failed.
    pub async fn remove_failures(&self) {
        let file = self.0.failures_file();
        // Mostly it is not there.
        let _ = self.blocking("the failures", move || fs::remove_file(file)).await;
    }

    /// Writes which proof the host of `domain` has to give.
    pub async fn write_challenge(&self, domain: &str, digest: &[u8]) -> Result<(), String> {
        let file = self.0.challenge_file(domain);
        let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.blocking("a challenge", move || write(&file, &text)).await
    }

    /// Removes all proofs that were wanted.
    pub async fn remove_challenges(&self) {
        let files: Vec<PathBuf> =
            self.0.domains.iter().map(|domain| self.0.challenge_file(domain)).collect();
        let removed = self.blocking("a challenge", move || {
            // Most are not there. One that stays answers a question that nobody asks any more.
            files.into_iter().for_each(|file| drop(fs::remove_file(file)));
            Ok(())
        });
        let _ = removed.await;
    }

    /// The proof that the host of `name`, in lower case, has to give now. Blocks while a small file is read.
    pub fn challenge(&self, name: &str) -> Option<[u8; 32]> {
        let domain = self.0.domains.iter().find(|domain| *domain == name)?;
        digest(&read(&self.0.challenge_file(domain)).ok()?)
    }

    /// Runs `work` on a thread for blocking calls. The error says what could not be read or written, and where.
    async fn blocking<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let done = tokio::task::spawn_blocking(work).await;
        let done = done.map_err(|error| error.to_string())?;
        done.map_err(|error| format!("{what} in {}: {error}", self.0.cache_dir.display()))
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let text = text.trim();
    if text.len() != 2 * digest.len() || !text.is_ascii() {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(digest)
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    // Several gateways may write here, and in containers all have the same process id.
    let new = folder.join(format!(".new-{}", Uuid::new_v4().simple()));
    let written = (|| {
        let mut opened = writable().create_new(true).open(&new)?;
        opened.write_all(text.as_bytes())?;
        opened.sync_all()?;
        fs::rename(&new, file)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // It is not there if it was renamed.
        let _ = fs::remove_file(new);
    }
    written
}

fn writable() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests;
