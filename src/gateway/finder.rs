//! "Find Destination": a named target with its properties and a token that is ready to use.

use super::Clock;
use super::errands::{Errands, Outcome};
use super::keeper::MARGIN;
use super::outbound::Wants;
use super::state::State;
use crate::crypto::digest::{Digest, sha256};
use crate::domain::destination::answer::{Attached, AuthToken, Owner, body, with_owners};
use crate::domain::destination::directory::{Directory, Facts, Item, etag};
use crate::domain::destination::meaning::{Destination, Keystore, Kind, TokenService, Tokens};
use crate::domain::destination::question::{At, Named, Owned, Question};
use crate::domain::destination::recipe::{Terms, Wanted};
use crate::domain::destination::{Level, Sort};
use crate::domain::name::ArtifactName;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use std::borrow::Cow;
use std::sync::Arc;

/// An answer with what its headers say.
pub struct Found {
    pub body: String,
    pub etag: String,
    /// Seconds that it may be kept; None if it may not.
    pub life: Option<i64>,
    /// Whether what is in it can be had no second time.
    pub once: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unfound {
    #[error("Configuration with the specified name was not found")]
    Nothing,
    #[error("Fragment with the specified name was not found")]
    NoFragment,
    #[error("{0}")]
    Request(String),
}

/// Why a lookup has no token: the request makes no sense, or the answer tells why.
enum NoToken {
    Unfound(Unfound),
    Told(String),
}

impl<T: Into<String>> From<T> for NoToken {
    fn from(why: T) -> Self {
        Self::Told(why.into())
    }
}

#[derive(Clone)]
pub struct Finder {
    state: Arc<State>,
    clock: Arc<dyn Clock>,
    wants: Wants,
    errands: Errands,
}

/// What was found before its token is looked for.
struct Target<'a> {
    directory: &'a Directory,
    item: &'a Item,
    facts: Arc<Facts>,
    /// Whose the caller is, by the instance's id.
    instance: &'a str,
}

impl Target<'_> {
    /// A certificate of the destination's own level, or of the other that the caller may see.
    fn certificate(&self, keystore: Option<&Keystore>) -> Result<Option<Arc<Item>>, String> {
        let Some(keystore) = keystore else { return Ok(None) };
        let own = self.directory.get(Sort::Certificate, &self.item.level, &keystore.name);
        let found = own.or_else(|| self.directory.find(Sort::Certificate, self.instance, &keystore.name));
        let missing = || format!("there is no certificate `{}`; store it first", keystore.name);
        found.cloned().map(Some).ok_or_else(missing)
    }
}

impl Finder {
    pub fn new(state: Arc<State>, clock: Arc<dyn Clock>, wants: Wants, errands: Errands) -> Self {
        Self { state, clock, wants, errands }
    }

    /// Answers a question of an instance, given by its id.
    pub async fn find(&self, instance: &str, name: &Named, question: &Question) -> Result<Found, Unfound> {
        let directory = self.state.destinations.load_full();

        // 1. the destination, with fragments over it
        let item = get(&directory, Sort::Destination, instance, name).ok_or(Unfound::Nothing)?;
        let facts = laid(&directory, item, instance, question)?;
        let meaning = facts.meaning.as_ref().map_err(|bad| Unfound::Request(bad.to_string()))?;
        let target = Target { directory: &directory, item, facts: facts.clone(), instance };

        // 2. its token; why there is none is part of the answer
        let token = if question.skip_tokens { None } else { self.token(&target, meaning, question).await? };

        // 3. what goes with it
        let attached = attached(&target, meaning, question);
        let certificates: Vec<_> = attached.iter().map(|item| shown(item)).collect();

        // 4. the answer
        let settings = self.state.settings.load();
        let zone = settings.tenant().zid.as_str();
        let owned = |item: &Item| {
            let own = matches!(item.level, Level::Instance(_)).then_some(instance);
            Owner { subaccount: zone, instance: own }
        };
        let configuration = if question.skip_credentials { &facts.masked } else { &facts.full };
        let configuration = match question.owner {
            Owned::Within => {
                let fragments = question.fragments.list.iter();
                let fragments = fragments.filter_map(|name| get(&directory, Sort::Fragment, instance, name));
                let of = |item: &Arc<Item>| owned(item).of(&item.name);
                let (fragments, attached) = (fragments.map(of).collect::<Vec<_>>(), attached.iter().map(of));
                let certificates = attached.collect::<Vec<_>>();
                Cow::Owned(with_owners(configuration, &[of(item)], &certificates, &fragments))
            }
            Owned::Beside | Owned::Not => Cow::Borrowed(configuration.as_str()),
        };
        let (told, digest, life) = token.map_or((None, [0; 32], None), |one| (Some(one.token), one.digest, one.life));
        let mut seen = [&facts.digest[..], &digest].concat();
        seen.extend(attached.iter().flat_map(|item| item.facts.digest));
        seen.extend([u8::from(question.skip_credentials), question.owner as u8]);
        // an answer that is kept by its tag is no older than the margin of its token
        seen.extend((life.unwrap_or_default() / MARGIN).to_be_bytes());
        let etag = format!("W/{}", etag(&sha256(&seen)));
        let once = meaning.kind == Kind::AuthorizationCode && told.is_some();
        let beside = (question.owner == Owned::Beside).then(|| owned(item).json().to_string());
        Ok(Found { body: body(beside.as_deref(), &configuration, told.as_ref(), &certificates), etag, life, once })
    }

    /// The entry of `authTokens`, for the kinds of authentication that have one.
    async fn token(
        &self,
        target: &Target<'_>,
        meaning: &Destination,
        question: &Question,
    ) -> Result<Option<Told>, Unfound> {
        let obtained = match (&meaning.tokens, &meaning.login) {
            (None, Some((user, password))) => Ok(basic(user, password)),
            (None, None) => return Ok(None),
            (Some(Tokens::Material(name)), _) => self.material(name).await.map_err(NoToken::Told),
            (Some(Tokens::Service(service)), _) => match self.terms(target, meaning, service, question).await {
                Ok(terms) => self.obtained(&target.facts, terms).await.map_err(NoToken::Told),
                Err(why) => Err(why),
            },
        };
        match obtained {
            Ok(told) => Ok(Some(told)),
            Err(NoToken::Unfound(unfound)) => Err(unfound),
            Err(NoToken::Told(why)) => {
                Ok(Some(Told { digest: sha256(why.as_bytes()), token: AuthToken::Failed(why), life: None }))
            }
        }
    }

    async fn obtained(&self, facts: &Arc<Facts>, terms: Terms) -> Result<Told, String> {
        let (now, kept) = (self.clock.now(), terms.kept());
        let outcome: Outcome = self.errands.token(facts, terms, now).await;
        let obtained = outcome.map_err(|why| why.to_string())?;
        let left = (obtained.until - self.clock.now()).max(1);
        Ok(Told {
            digest: obtained.digest,
            token: AuthToken::Token {
                kind: "Bearer",
                value: obtained.token.clone(),
                expires_in: Some(left),
                scope: obtained.scope.clone(),
                refresh_token: obtained.refresh_token.clone(),
            },
            life: kept.then_some(left),
        })
    }

    /// The token of a deployed credential.
    async fn material(&self, name: &ArtifactName) -> Result<Told, String> {
        let held = self.wants.token(&self.state, &*self.clock, name).await?;
        let value = held.token();
        let left = (held.until() - self.clock.now()).max(1);
        let digest = sha256(value.expose_secret().as_bytes());
        let token =
            AuthToken::Token { kind: "Bearer", value, expires_in: Some(left), scope: None, refresh_token: None };
        Ok(Told { digest, token, life: Some(left) })
    }

    /// What the lookup adds to the destination, or why no token can be asked for.
    async fn terms(
        &self,
        target: &Target<'_>,
        meaning: &Destination,
        service: &TokenService,
        question: &Question,
    ) -> Result<Terms, NoToken> {
        let subdomain = self.subdomain(meaning.kind, service, question)?;
        let assertion = self.assertion(target, service, question).await?;
        let keystore = target.certificate(service.keystore.as_ref())?;
        let trust = target.certificate(meaning.trust.as_ref())?;
        Ok(Terms { wanted: wanted(meaning.kind, question)?, subdomain, assertion, keystore, trust })
    }

    /// The tenant whose token is asked for.
    fn subdomain(&self, kind: Kind, service: &TokenService, question: &Question) -> Result<String, NoToken> {
        match (service.common, kind, &question.tenant) {
            (false, Kind::ClientCredentials, Some(_)) => {
                let text = "header x-tenant goes with tokenServiceURLType Common alone";
                Err(NoToken::Unfound(Unfound::Request(text.to_owned())))
            }
            (false, ..) => Ok(String::new()),
            (true, Kind::ClientCredentials, Some(tenant)) => Ok(tenant.clone()),
            (true, Kind::ClientCredentials, None) if question.user_token.is_none() => {
                Err("You must send the X-tenant header when the tokenServiceURLType property is Common".into())
            }
            (true, ..) => Ok(self.own_subdomain()),
        }
    }

    fn own_subdomain(&self) -> String {
        self.state.settings.load().tenant().subdomain.clone()
    }

    /// The client assertion that the caller brings, or that another destination provides.
    async fn assertion(
        &self,
        target: &Target<'_>,
        service: &TokenService,
        question: &Question,
    ) -> Result<Option<(String, SecretString)>, String> {
        if let Some(given) = &question.assertion {
            return Ok(Some(given.clone()));
        }
        let from = question.assertion_from.as_ref().or(service.assertion_from.as_ref());
        let Some(name) = from else { return Ok(None) };
        let provider = target.directory.get(Sort::Destination, &target.item.level, name);
        let provider = provider.ok_or_else(|| format!("there is no destination `{name}` to provide the assertion"))?;
        let meaning = provider.facts.meaning.as_ref().map_err(|bad| format!("destination `{name}`: {bad}"))?;
        let unfit = || {
            format!(
                "destination `{name}` cannot provide assertions: it must be of OAuth2ClientCredentials and have clientAssertion.type"
            )
        };
        let service = meaning.service().ok_or_else(unfit)?;
        let kind = service.assertion_type.clone().ok_or_else(unfit)?;
        let source = Target { item: provider, facts: provider.facts.clone(), ..*target };
        let terms = Terms {
            wanted: Wanted::ClientCredentials,
            subdomain: self.own_subdomain(),
            assertion: None,
            keystore: source.certificate(service.keystore.as_ref())?,
            trust: source.certificate(meaning.trust.as_ref())?,
        };
        let outcome = self.errands.token(&provider.facts, terms, self.clock.now()).await;
        let obtained = outcome.map_err(|why| format!("destination `{name}` provides no assertion: {why}"))?;
        Ok(Some((kind, obtained.token.clone())))
    }
}

/// An entry of `authTokens` with how long it holds.
struct Told {
    token: AuthToken,
    digest: Digest,
    life: Option<i64>,
}

fn basic(user: &str, password: &SecretString) -> Told {
    let value = SecretString::from(STANDARD.encode(format!("{user}:{}", password.expose_secret())));
    let digest = sha256(value.expose_secret().as_bytes());
    let token = AuthToken::Token { kind: "Basic", value, expires_in: None, scope: None, refresh_token: None };
    Told { token, digest, life: None }
}

fn get<'a>(directory: &'a Directory, sort: Sort, instance: &str, name: &Named) -> Option<&'a Arc<Item>> {
    match name.at {
        None => directory.find(sort, instance, &name.name),
        Some(At::Subaccount) => directory.get(sort, &Level::Subaccount, &name.name),
        Some(At::Instance) => directory.get(sort, &Level::Instance(instance.to_owned()), &name.name),
    }
}

/// The destination's facts, or those that it has with fragments over it.
fn laid(directory: &Directory, item: &Arc<Item>, instance: &str, question: &Question) -> Result<Arc<Facts>, Unfound> {
    let mut over = Vec::new();
    for name in &question.fragments.list {
        match get(directory, Sort::Fragment, instance, name) {
            Some(fragment) => over.push(&fragment.properties),
            None if question.fragments.optional => {}
            None => return Err(Unfound::NoFragment),
        }
    }
    if over.is_empty() {
        return Ok(item.facts.clone());
    }
    let under = item.properties.under(&over);
    under.map(|properties| Arc::new(Facts::of(&properties))).map_err(|bad| Unfound::Request(bad.to_string()))
}

fn wanted(kind: Kind, question: &Question) -> Result<Wanted, String> {
    match kind {
        Kind::RefreshToken => {
            let token = question.refresh_token.clone();
            token.map(Wanted::Refresh).ok_or_else(|| "You must send the X-refresh-token header".to_owned())
        }
        Kind::AuthorizationCode => {
            let code = question.code.clone().ok_or("You must send the X-code header")?;
            let (redirect_uri, verifier) = (question.redirect_uri.clone(), question.verifier.clone());
            Ok(Wanted::Code { code, redirect_uri, verifier })
        }
        Kind::Password => Ok(Wanted::Password),
        _ => Ok(Wanted::ClientCredentials),
    }
}

/// The certificates that the caller needs itself.
fn attached(target: &Target<'_>, meaning: &Destination, question: &Question) -> Vec<Arc<Item>> {
    let service = meaning.service().and_then(|service| service.keystore.as_ref());
    let names = [meaning.keystore.as_ref(), meaning.trust.as_ref(), service.filter(|_| question.skip_tokens)];
    let found = names.into_iter().filter_map(|keystore| target.certificate(keystore).ok().flatten());
    if question.skip_credentials { Vec::new() } else { found.collect() }
}

fn shown(item: &Item) -> Attached<'_> {
    let get = |name| item.properties.get(name).unwrap_or_default();
    Attached { name: &item.name, content: get("Content"), kind: "CERTIFICATE" }
}
