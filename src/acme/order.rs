//! One order: an account, the proof for each name, and the certificate.

use std::time::{Duration, Instant};

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};

use super::cache::Cache;
use super::client::Client;
use crate::config::Acme;

/// How the authority is asked whether it has validated the names, and whether the certificate is there.
const POLLS: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

/// The authority does not know the account (RFC 8555 section 6.7).
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// The account may not do this: it was deactivated, for example.
const UNAUTHORIZED: &str = "urn:ietf:params:acme:error:unauthorized";

/// Why there is no certificate.
#[derive(Debug)]
pub(super) struct Failure {
    pub reason: String,
    /// The pause that the authority asks for.
    pub retry_after: Option<Duration>,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self { reason, retry_after: None }
    }
}

/// Orders a certificate. Returns its private key and the chain, in PEM.
pub(super) async fn order(acme: &Acme, cache: &Cache) -> Result<String, Failure> {
    let client = Client::new(acme)?;
    // Those of an order that was broken off.
    cache.remove_challenges().await;
    let ordered = place(acme, cache, client.clone()).await;
    cache.remove_challenges().await;
    match ordered {
        Ok(text) => Ok(text),
        Err(error) => {
            if has_kind(&error, NO_ACCOUNT) {
                cache.remove_account().await?;
            }
            let retry_after = match &error {
                Error::Timeout(Some(at)) => Some(at.saturating_duration_since(Instant::now())),
                _ => client.retry_after(),
            };
            let mut reason = describe(&error);
            if has_kind(&error, UNAUTHORIZED) {
                let account = acme.account_file();
                reason +=
                    &format!("; if the account was deactivated, remove {}", account.display());
            }
            Err(Failure { reason, retry_after })
        }
    }
}

async fn place(acme: &Acme, cache: &Cache, client: Client) -> Result<String, Error> {
    let account = account(acme, cache, client).await?;
    let names: Vec<Identifier> = acme.domains.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    prove(&mut order, cache).await?;
    match order.poll_ready(&POLLS).await {
        Ok(OrderStatus::Ready) => {}
        Ok(_) => return Err(refused(&mut order, None).await),
        Err(error) => return Err(refused(&mut order, Some(error)).await),
    }
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&POLLS).await?;
    Ok(format!("{key}{chain}"))
}

/// The account that was used before, or a new one.
async fn account(acme: &Acme, cache: &Cache, client: Client) -> Result<Account, Error> {
    let contact: Vec<&str> = acme.contact.iter().map(String::as_str).collect();
    let builder = Account::builder_with_http(Box::new(client));
    if let Some(text) = cache.account().await.map_err(other)? {
        let credentials: AccountCredentials = serde_json::from_str(&text).map_err(|_| {
            other(format!("{} is malformed: remove it", acme.account_file().display()))
        })?;
        let account = builder.from_credentials(credentials).await?;
        // They may have changed since.
        account.update_contacts(&contact).await?;
        return Ok(account);
    }
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let (account, credentials) = builder.create(&new, acme.directory.to_string(), None).await?;
    cache.write_account(serde_json::to_string(&credentials)?).await.map_err(other)?;
    Ok(account)
}

/// Prepares the proof for each name, and asks the authority to look.
async fn prove(order: &mut Order, cache: &Cache) -> Result<(), Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let name = authorization.identifier().to_string();
        match authorization.status {
            AuthorizationStatus::Pending => {}
            // It was proven not long ago.
            AuthorizationStatus::Valid => continue,
            status => return Err(other(format!("the authorization of {name} is {status:?}"))),
        }
        let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
        let mut challenge = challenge
            .ok_or_else(|| other(format!("the authority offers no tls-alpn-01 for {name}")))?;
        let digest = challenge.key_authorization().digest();
        cache.write_challenge(&name, digest.as_ref()).await.map_err(other)?;
        challenge.set_ready().await?;
    }
    Ok(())
}

/// The error of an order that did not become ready, with what the authority says about each name.
async fn refused(order: &mut Order, error: Option<Error>) -> Error {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { break };
        let failed = state.challenges.iter().find_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = failed {
            let detail = problem.detail.as_deref().unwrap_or("no detail");
            reasons.push(format!("{}: {detail}", state.identifier()));
        }
    }
    match (reasons.is_empty(), error) {
        (false, _) => other(reasons.join("; ")),
        (true, Some(error)) => error,
        (true, None) => other("the authority has refused the order".to_owned()),
    }
}

fn has_kind(error: &Error, wanted: &str) -> bool {
    matches!(error, Error::Api(Problem { r#type: Some(kind), .. }) if kind == wanted)
}

fn other(reason: String) -> Error {
    Error::Other(reason.into())
}

fn describe(error: &Error) -> String {
    match error {
        Error::Api(problem) => {
            let names = problem.subproblems.iter().filter_map(|problem| problem.detail.as_deref());
            let details: Vec<&str> = problem.detail.as_deref().into_iter().chain(names).collect();
            match details.is_empty() {
                true => problem.to_string(),
                false => details.join("; "),
            }
        }
        error => error.to_string(),
    }
}
