//! One order at a real authority: account, order, challenges, CSR, certificate (RFC 8555 §7.1.6).
//!
//! Requests are those of [`rustls_acme::acme`]; what is ours is the way through them: the key is given, every request
//! and the whole order have a deadline, a nonce that ran out is replaced (§6.5), and where both challenges are offered an
//! order that failed is tried with the other one next time.

use super::{AcmeSettings, Answers, IssueError, Issued, Issuer, NONCES, Store, binding, problem};
use crate::tls::TlsError;
use postkeep_shared::{
    disk::Disk,
    tls::{VERSIONS, provider},
};
use rustls_acme::acme::{
    Account, AcmeError, Auth, AuthStatus, Challenge, ChallengeType, Directory, Identifier, Order, OrderStatus,
};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Longest time for everything.
const WHOLE: Duration = Duration::from_secs(600);
/// Pauses between looks at something that is being worked on; the last one repeats.
const PAUSES: [u64; 5] = [1, 1, 2, 3, 5];

/// An authority, as configured.
pub struct Authority {
    settings: AcmeSettings,
    client: Arc<ClientConfig>,
    store: Store,
    disk: Arc<dyn Disk>,
    answers: Arc<Answers>,
    orders: AtomicUsize,
}

impl Authority {
    /// Prepares to ask; sends nothing yet.
    ///
    /// # Errors
    /// [`TlsError`]: no authority to check the directory's certificate with.
    pub fn new(
        settings: &AcmeSettings,
        store: Store,
        answers: Arc<Answers>,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, TlsError> {
        let roots = roots(settings)?;
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(VERSIONS).map_err(|e| TlsError::Unusable(e.to_string()))?;
        let client = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
        Ok(Self { settings: settings.clone(), client, store, disk, answers, orders: AtomicUsize::new(0) })
    }

    async fn account(&self) -> Result<Account, IssueError> {
        let disk_trouble = |e: TlsError| IssueError::new(e.to_string());
        let url = &self.settings.directory;
        let directory = asked("directory", || Directory::discover(&self.client, url)).await?;
        let key = self.store.account_key(Account::generate_key_pair).map_err(disk_trouble)?;
        let contact = &self.settings.contact;
        if let (Some(binding), None) = (&self.settings.binding, self.store.account_url()) {
            let enrolled = binding::enrol(&self.client, &directory, contact, &key, binding, self.disk.as_ref());
            timeout(ANSWER, enrolled).await.map_err(|_| late("account"))??;
        }
        let account =
            asked("account", || Account::create_with_keypair(&self.client, directory.clone(), contact.iter(), &key));
        let account = account.await?;
        self.store.keep_account_url(&account.kid).map_err(disk_trouble)?;
        Ok(account)
    }

    /// The kind of challenge of this order.
    fn kind(&self) -> ChallengeType {
        let order = self.orders.fetch_add(1, Ordering::Relaxed);
        let (tls, http) = (!self.settings.tls_listen.is_empty(), !self.settings.http_listen.is_empty());
        if tls && (!http || order.is_multiple_of(2)) { ChallengeType::TlsAlpn01 } else { ChallengeType::Http01 }
    }

    async fn authorize(&self, account: &Account, url: &str, kind: &ChallengeType) -> Result<(), IssueError> {
        let auth = asked("authorization", || account.auth(&self.client, url)).await?;
        let Identifier::Dns(name) = &auth.identifier;
        match auth.status {
            AuthStatus::Valid => return Ok(()),
            AuthStatus::Pending => {}
            _ => return Err(refused(name, &auth)),
        }
        let challenge = self.prepare(account, &auth.challenges, name, kind)?;
        asked("challenge", || account.challenge(&self.client, &challenge.url)).await?;
        for pause in pauses() {
            sleep(pause).await;
            let auth = asked("authorization", || account.auth(&self.client, url)).await?;
            match auth.status {
                AuthStatus::Pending => {}
                AuthStatus::Valid => return Ok(()),
                _ => return Err(refused(name, &auth)),
            }
        }
        Err(late("authorization"))
    }

    fn prepare<'a>(
        &self,
        account: &Account,
        challenges: &'a [Challenge],
        name: &str,
        kind: &ChallengeType,
    ) -> Result<&'a Challenge, IssueError> {
        if *kind == ChallengeType::TlsAlpn01 {
            let prepared = account.tls_alpn_01(challenges, name.to_owned());
            let (challenge, certificate) = prepared.map_err(|e| IssueError::of(&e))?;
            self.answers.expect_tls(name, certificate);
            Ok(challenge)
        } else {
            let (challenge, answer) = account.http_01(challenges).map_err(|e| IssueError::of(&e))?;
            self.answers.expect_http(&challenge.token, answer);
            Ok(challenge)
        }
    }

    async fn order(&self, key: &str, names: &[String]) -> Result<Issued, IssueError> {
        let account = self.account().await?;
        let csr = csr(key, names)?;
        let (url, mut order) = asked("order", || account.new_order(&self.client, names.to_vec())).await?;
        let kind = self.kind();
        let mut waits = pauses();
        loop {
            match order.status {
                OrderStatus::Pending => {
                    for url in &order.authorizations {
                        self.authorize(&account, url, &kind).await?;
                    }
                    order = self.again(&account, &url, &mut waits).await?;
                }
                OrderStatus::Ready => {
                    order = asked("finalize", || account.finalize(&self.client, &order.finalize, &csr)).await?;
                }
                OrderStatus::Processing => order = self.again(&account, &url, &mut waits).await?,
                OrderStatus::Valid { certificate } => {
                    let chain = asked("certificate", || account.certificate(&self.client, &certificate)).await?;
                    return Ok(Issued { chain, account: account.kid });
                }
                OrderStatus::Invalid => {
                    let detail = order.error.and_then(|problem| problem.detail).unwrap_or_default();
                    let detail = postkeep_shared::run::printable(detail.as_bytes());
                    return Err(IssueError::new(format!("the ACME server gave the order up: {detail}")));
                }
            }
        }
    }

    async fn again(
        &self,
        account: &Account,
        url: &str,
        waits: &mut impl Iterator<Item = Duration>,
    ) -> Result<Order, IssueError> {
        sleep(waits.next().ok_or_else(|| late("order"))?).await;
        asked("order", || account.order(&self.client, url)).await
    }
}

#[async_trait::async_trait]
impl Issuer for Authority {
    async fn issue(&self, key: &str, names: &[String]) -> Result<Issued, IssueError> {
        let issued = timeout(WHOLE, self.order(key, names)).await;
        self.answers.clear();
        issued.unwrap_or_else(|_| Err(late("whole order")))
    }
}

/// Asks with a deadline, and again with a fresh nonce where the last one ran out.
async fn asked<T, F: Future<Output = Result<T, AcmeError>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> Result<T, IssueError> {
    let mut last = None;
    for _ in 0..NONCES {
        match timeout(ANSWER, ask()).await {
            Err(_) => return Err(late(what)),
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => {
                let again = problem(&error.to_string()).is_some_and(|text| text.ends_with("(badNonce)"));
                let error = IssueError::new(format!("{what}: {}", IssueError::of(&error)));
                if !again {
                    return Err(error);
                }
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| late(what)))
}

fn late(what: &str) -> IssueError {
    IssueError::new(format!("{what}: the ACME server takes too long"))
}

/// Why the authority could not convince itself, in its own words.
fn refused(name: &str, auth: &Auth) -> IssueError {
    let detail = auth.challenges.iter().find_map(|challenge| challenge.error.as_ref()?.detail.clone());
    let detail = postkeep_shared::run::printable(detail.unwrap_or_default().as_bytes());
    IssueError::new(format!("the ACME server could not check {name}: {detail}"))
}

/// About five minutes altogether.
fn pauses() -> impl Iterator<Item = Duration> {
    let last = PAUSES.last().copied().unwrap_or(1);
    let end = Instant::now() + WHOLE / 2;
    PAUSES.into_iter().chain(std::iter::repeat(last)).map(Duration::from_secs).take_while(move |_| Instant::now() < end)
}

fn csr(key: &str, names: &[String]) -> Result<Vec<u8>, IssueError> {
    let unusable = |e: rcgen::Error| IssueError::new(format!("certificate request: {e}"));
    let key = rcgen::KeyPair::from_pem(key).map_err(unusable)?;
    let mut params = rcgen::CertificateParams::new(names.to_vec()).map_err(unusable)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    Ok(params.serialize_request(&key).map_err(unusable)?.der().to_vec())
}

/// Who may sign the directory's own certificate.
pub(super) fn roots(settings: &AcmeSettings) -> Result<RootCertStore, TlsError> {
    settings.directory_ca.as_deref().map_or_else(system_roots, file_roots)
}

fn file_roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let content = || TlsError::Content { file: file.to_owned(), what: "holds no certificate of an authority" };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|_| content())? {
        roots.add(certificate.map_err(|_| content())?).map_err(|_| content())?;
    }
    if roots.is_empty() { Err(content()) } else { Ok(roots) }
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    Ok(roots)
}
