//! How many connections each address has, over all lanes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
pub struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// A connection of an address, until it is dropped.
#[derive(Debug)]
pub struct Counted {
    address: IpAddr,
    all: Arc<Addresses>,
}

impl Addresses {
    /// Counts a connection in, unless its address has as many as it may.
    pub fn enter(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Counted> {
        let address = one_of(address);
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Counted { address, all: self.clone() })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.all.counts();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// By what an address is known: a site has a whole /64 of IPv6.
pub fn one_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => {
            let [a, b, c, d, ..] = six.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        four @ IpAddr::V4(_) => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_no_more_connections_than_it_may() {
        let all = Arc::new(Addresses::default());
        let enter = |text: &str| all.enter(text.parse().expect("an address"), 2);
        let first = enter("192.0.2.1");
        let (second, third) = (enter("::ffff:192.0.2.1"), enter("192.0.2.1"));
        assert!(first.is_some() && second.is_some() && third.is_none());
        assert!(enter("192.0.2.2").is_some());
        drop(first);
        assert!(enter("192.0.2.1").is_some());
        let _six = (enter("2001:db8::1"), enter("2001:db8::2"));
        assert!(enter("2001:db8::3").is_none() && enter("2001:db8:0:1::3").is_some());
        drop(second);
        assert_eq!(all.counts().keys().filter(|key| key.is_ipv4()).count(), 0);
    }
}
