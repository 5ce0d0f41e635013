//! The clients as the request path sees them: every instance with its keys, found by client id or
//! by certificate. Persistent maps, so that a change costs a path and not a copy.

use super::grant::{Credentials, Proof};
use super::instance::Instance;
use super::key::{Key, digest_of_hex};
use super::reason::Reason;
use super::trail::Refusal;
use crate::crypto::digest::{Digest, Keyed, same};
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
    by_certificate: HashMap<Digest, (String, String)>,
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
        if let Some(fingerprint) = key.certificate().and_then(|one| digest_of_hex(&one.fingerprint)) {
            self.by_certificate.insert(fingerprint, (key.instance_id.clone(), key.id.clone()));
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
        let details = key.as_ref().and_then(|key| key.certificate());
        if let Some(fingerprint) = details.and_then(|one| digest_of_hex(&one.fingerprint)) {
            self.by_certificate.remove(&fingerprint);
        }
    }

    pub fn find(&self, client_id: &str) -> Option<&Arc<Client>> {
        self.by_instance.get(self.by_client_id.get(client_id)?)
    }

    pub fn find_instance(&self, id: &str) -> Option<&Arc<Client>> {
        self.by_instance.get(id)
    }

    pub fn by_certificate(&self, fingerprint: &Digest) -> Option<(&Arc<Client>, &Arc<Key>)> {
        let (instance, key) = self.by_certificate.get(fingerprint)?;
        let client = self.by_instance.get(instance)?;
        Some((client, client.key(key)?))
    }

    pub fn is_empty(&self) -> bool {
        self.by_instance.is_empty()
    }

    /// Who the credentials prove their sender to be.
    pub fn authenticate(&self, offered: &Credentials, pepper: &Keyed) -> Result<Proof, Refusal> {
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
                Ok(Proof { client: client.clone(), key: key.clone() })
            }
            Credentials::Certificate { fingerprint, subject } => {
                let (client, key) = self
                    .by_certificate(fingerprint)
                    .ok_or_else(|| Refusal::because(Reason::CertificateUnknown, format!("certificate {subject}")))?;
                Ok(Proof { client: client.clone(), key: key.clone() })
            }
        }
    }
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
