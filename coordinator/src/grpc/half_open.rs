//! How many handshakes one address has under way. Without a share of its own, one address could take every place and
//! keep all others waiting in the kernel's backlog.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Handshakes of one address at once: enough for a fleet that comes back from behind one gateway, an eighth of all.
pub(super) const PER_ADDRESS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct HalfOpen(Mutex<HashMap<IpAddr, usize>>);

/// One handshake; dropped, it has ended.
#[derive(Debug)]
pub(super) struct Handshake {
    all: Arc<HalfOpen>,
    from: IpAddr,
}

impl HalfOpen {
    /// `None`: this address has its share.
    pub(super) fn begin(self: &Arc<Self>, address: IpAddr) -> Option<Handshake> {
        let from = share_of(address);
        let mut all = self.all();
        let count = all.entry(from).or_insert(0);
        if *count >= PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Handshake { all: Arc::clone(self), from })
    }

    fn all(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut all = self.all.all();
        if let Some(count) = all.get_mut(&self.from) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                all.remove(&self.from);
            }
        }
    }
}

/// Whoever has one IPv6 address has the 2^64 of its network.
fn share_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => std::net::Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_room_for_others_and_gets_its_places_back() {
        let all = Arc::new(HalfOpen::default());
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut held: Vec<_> =
            (0..PER_ADDRESS).map(|n| all.begin(address(&format!("2001:db8::{n:x}"))).unwrap()).collect();
        assert!(all.begin(address("2001:db8::ffff")).is_none(), "the same network");
        let other = all.begin(address("192.0.2.1")).unwrap();
        held.pop();
        held.push(all.begin(address("2001:db8::1")).unwrap());
        drop((held, other));
        assert!(all.all().is_empty(), "nothing is kept of who is gone");
    }
}
