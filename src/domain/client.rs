//! The clients as the request path sees them: every instance with its keys, found by client id or
//! by certificate. Persistent maps, so that a change costs a path and not a copy.

use super::grant::{Credentials, Proof};
use super::instance::Instance;
use super::key::{CertificateDetails, Key, digest_of_hex, model_time, names_text};
use super::reason::Reason;
use super::trail::Refusal;
use crate::crypto::digest::{Digest, Keyed, same};
use crate::crypto::x509::Certificate;
use imbl::HashMap;
use secrecy::ExposeSecret;
use std::sync::Arc;

/// An instance with all its keys.
#[derive(Debug, Clone)]
pub struct Client {
    pub instance: Arc<Instance>,
    keys: HashMap<String, Arc<Key>>,
    secrets: HashMap<String, Digest>,
}

impl Client {
    pub fn key(&self, id: &str) -> Option<&Arc<Key>> {
        self.keys.get(id)
    }

    /// The key whose secret was presented. Every digest is compared, in constant time each.
    fn key_by_secret(&self, digest: &Digest) -> Option<&Arc<Key>> {
        let mut found = None;
        for (id, stored) in &self.secrets {
            if same(stored, digest) {
                found = self.keys.get(id);
            }
        }
        found
    }
}

/// All clients.
#[derive(Debug, Clone, Default)]
pub struct Clients {
    by_instance: HashMap<String, Arc<Client>>,
    by_client_id: HashMap<String, String>,
    /// Instance and key of every certificate that is known as it stands.
    by_certificate: HashMap<Digest, (String, String)>,
    /// The same for keys that go by names.
    by_names: HashMap<String, (String, String)>,
    /// Fingerprints that their pin alone vouches for.
    pinned_alone: imbl::HashSet<Digest>,
    key_owner: HashMap<String, String>,
}

impl Clients {
    pub fn put_instance(&mut self, instance: Instance) {
        let id = instance.id.clone();
        for name in [&instance.client_id].into_iter().chain(&instance.aliases) {
            self.by_client_id.insert(name.clone(), id.clone());
        }
        let instance = Arc::new(instance);
        match self.by_instance.get_mut(&id) {
            Some(client) => Arc::make_mut(client).instance = instance,
            None => {
                let client = Client { instance, keys: HashMap::new(), secrets: HashMap::new() };
                self.by_instance.insert(id, Arc::new(client));
            }
        }
    }

    pub fn remove_instance(&mut self, id: &str) {
        if let Some(client) = self.by_instance.remove(id) {
            for name in [&client.instance.client_id].into_iter().chain(&client.instance.aliases) {
                self.by_client_id.remove(name);
            }
        }
    }

    /// Adds a key to its instance; a key without one is left out.
    pub fn put_key(&mut self, key: Key) {
        let Some(client) = self.by_instance.get_mut(&key.instance_id) else { return };
        let client = Arc::make_mut(client);
        if let Some(digest) = key.secret_digest() {
            client.secrets.insert(key.id.clone(), digest);
        }
        let place = || (key.instance_id.clone(), key.id.clone());
        if let Some((last, _)) = key.unpinned() {
            self.by_names.insert(last.names.clone(), place());
        } else if let Some(fingerprint) = key.certificate().and_then(|one| digest_of_hex(&one.fingerprint)) {
            self.by_certificate.insert(fingerprint, place());
            if key.pinned_alone() {
                self.pinned_alone.insert(fingerprint);
            }
        }
        self.key_owner.insert(key.id.clone(), key.instance_id.clone());
        client.keys.insert(key.id.clone(), Arc::new(key));
    }

    pub fn remove_key(&mut self, id: &str) {
        let Some(owner) = self.key_owner.remove(id) else { return };
        let Some(client) = self.by_instance.get_mut(&owner) else { return };
        let client = Arc::make_mut(client);
        client.secrets.remove(id);
        let key = client.keys.remove(id);
        let Some(key) = key else { return };
        if let Some((last, _)) = key.unpinned() {
            self.by_names.remove(&last.names);
        } else if let Some(fingerprint) = key.certificate().and_then(|one| digest_of_hex(&one.fingerprint)) {
            self.by_certificate.remove(&fingerprint);
            self.pinned_alone.remove(&fingerprint);
        }
    }

    pub fn find(&self, client_id: &str) -> Option<&Arc<Client>> {
        self.by_instance.get(self.by_client_id.get(client_id)?)
    }

    pub fn find_instance(&self, id: &str) -> Option<&Arc<Client>> {
        self.by_instance.get(id)
    }

    /// Whose certificate it is. Names are parsed names, never text.
    pub fn by_certificate(&self, certificate: &Certificate) -> Result<Proof, Refusal> {
        let found = self.by_certificate.get(&certificate.fingerprint);
        let found = found.or_else(|| self.by_names.get(&names_text(&certificate.names)));
        let known = found.and_then(|(instance, key)| {
            let client = self.by_instance.get(instance)?;
            Some((client, client.key(key)?))
        });
        let shown = || format!("certificate {} of {}", certificate.subject, certificate.issuer);
        let (client, key) = known.ok_or_else(|| Refusal::because(Reason::CertificateUnknown, shown()))?;
        let renewal = match key.unpinned() {
            Some((last, _)) => successor(key, last, certificate)?,
            None => None,
        };
        Ok(Proof { client: client.clone(), key: key.clone(), renewal })
    }

    /// Whether its pin alone vouches for a certificate.
    pub fn pinned_alone(&self) -> &imbl::HashSet<Digest> {
        &self.pinned_alone
    }

    /// All keys, with the instances that they belong to.
    pub fn keys(&self) -> impl Iterator<Item = (&Arc<Client>, &Arc<Key>)> {
        self.by_instance.values().flat_map(|client| client.keys.values().map(move |key| (client, key)))
    }

    pub fn instances(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.by_instance.values()
    }

    pub fn is_empty(&self) -> bool {
        self.by_instance.is_empty()
    }

    /// Who the credentials prove their sender to be.
    pub fn authenticate(&self, offered: &Credentials<'_>, pepper: &Keyed) -> Result<Proof, Refusal> {
        match offered {
            Credentials::Secret { ids, secrets } => {
                // an unknown client costs the same digests as a known one
                let digests: Vec<_> =
                    secrets.iter().map(|secret| pepper.digest(secret.expose_secret().as_bytes())).collect();
                let client = ids.iter().find_map(|id| self.find(id));
                let client = client.ok_or_else(|| unknown(ids.first()))?;
                let key = digests.iter().find_map(|digest| client.key_by_secret(digest));
                let key = key.ok_or_else(|| {
                    Refusal::because(Reason::SecretWrong, format!("instance {}", client.instance.name))
                })?;
                Ok(Proof { client: client.clone(), key: key.clone(), renewal: None })
            }
            Credentials::Certificate(certificate) => self.by_certificate(certificate),
        }
    }
}

/// What an unpinned key becomes by a certificate of its names: nothing new for the one accepted
/// last, renewed by a later one. Older ones are refused from then on.
fn successor(key: &Key, last: &CertificateDetails, certificate: &Certificate) -> Result<Option<Key>, Refusal> {
    let fresh = CertificateDetails::of(certificate);
    if fresh.fingerprint == last.fingerprint {
        return Ok(None);
    }
    let older = || {
        let accepted = model_time(last.valid_from);
        let issued = model_time(fresh.valid_from);
        Refusal::because(
            Reason::CertificateSuperseded,
            format!("key {} accepted a certificate issued {accepted}; this one was issued {issued}", key.name),
        )
    };
    key.renewed(&fresh).map(Some).ok_or_else(older)
}

fn unknown(id: Option<&String>) -> Refusal {
    let shown: String = id.map(|id| id.chars().take(96).flat_map(char::escape_default).collect()).unwrap_or_default();
    Refusal::because(Reason::ClientUnknown, format!("client `{shown}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::instance::Plan;
    use crate::domain::key::Credential;
    use crate::domain::name::{InstanceName, KeyName};
    use secrecy::SecretString;

    fn pepper() -> Keyed {
        Keyed::new(b"pepper")
    }

    fn clients() -> Clients {
        let mut clients = Clients::default();
        clients.put_instance(Instance {
            id: "i1".into(),
            name: InstanceName::parse("orders").expect("a name"),
            plan: Plan::IntegrationFlow,
            client_id: "sb-1!b1|it!b1".into(),
            aliases: vec!["sb-old".into()],
            roles: Vec::new(),
            token_validity: 3600,
            bound_tokens: false,
            trusted_cas: Vec::new(),
            created: 0,
        });
        for (id, secret) in [("k1", "one"), ("k2", "two")] {
            let digest = crate::crypto::digest::hex(&pepper().digest(secret.as_bytes()));
            clients.put_key(Key {
                id: id.into(),
                instance_id: "i1".into(),
                name: KeyName::parse(id).expect("a name"),
                created: 0,
                credential: Credential::Secret { digest },
            });
        }
        clients
    }

    fn try_secret(clients: &Clients, id: &str, secret: &str) -> Result<String, Reason> {
        let offered = Credentials::Secret { ids: vec![id.into()], secrets: vec![SecretString::from(secret)] };
        let proof = clients.authenticate(&offered, &pepper()).map_err(|refusal| refusal.reason)?;
        Ok(proof.key.id.clone())
    }

    #[test]
    fn every_key_of_an_instance_authenticates_by_every_client_id_of_it() {
        let clients = clients();
        assert_eq!(try_secret(&clients, "sb-1!b1|it!b1", "one").as_deref(), Ok("k1"));
        assert_eq!(try_secret(&clients, "sb-old", "two").as_deref(), Ok("k2"));
        assert_eq!(try_secret(&clients, "sb-old", "three"), Err(Reason::SecretWrong));
        assert_eq!(try_secret(&clients, "nobody", "one"), Err(Reason::ClientUnknown));
    }

    #[test]
    fn what_is_removed_no_longer_authenticates() {
        let mut clients = clients();
        clients.remove_key("k1");
        assert_eq!(try_secret(&clients, "sb-old", "one"), Err(Reason::SecretWrong));
        clients.remove_instance("i1");
        assert_eq!(try_secret(&clients, "sb-old", "two"), Err(Reason::ClientUnknown));
        assert!(clients.is_empty());
    }

    #[test]
    fn an_update_of_an_instance_keeps_its_keys() {
        let mut clients = clients();
        let mut instance = clients.find("sb-old").expect("there").instance.as_ref().clone();
        instance.token_validity = 7200;
        clients.put_instance(instance);
        assert_eq!(try_secret(&clients, "sb-old", "one").as_deref(), Ok("k1"));
    }
}
