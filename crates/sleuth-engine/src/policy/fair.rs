use std::collections::{BTreeSet, HashMap};

use super::Tenant;

/// Idle tenants that are remembered at most, so that invented names take no memory.
const REMEMBERED: usize = 1024;

/// How much each tenant was served: start-time fair queueing, in tokens.
///
/// A tenant that comes back from idle starts at the virtual time, so idleness earns no credit. It
/// also keeps what it took beyond that time, so that a pause pays no debt.
#[derive(Debug, Default)]
pub(super) struct Service {
    /// The virtual time: what the tenant had that was last picked for having least, and never
    /// less than any waiting tenant has. Only grows.
    now: u64,
    accounts: HashMap<Tenant, Account>,
    /// Tenants with waiting items.
    active: BTreeSet<(u64, Tenant)>,
    /// Tenants without, as far as they are ahead of `now`; the others are forgotten.
    idle: BTreeSet<(u64, Tenant)>,
}

#[derive(Debug)]
struct Account {
    served: u64,
    waiting: usize,
}

// === impl Service ===

impl Service {
    /// What a tenant was served; where it has nothing waiting, what it would start at.
    pub(super) fn served(&self, tenant: &Tenant) -> u64 {
        self.accounts.get(tenant).map_or(self.now, |account| account.served)
    }

    /// An item of `tenant` waits.
    pub(super) fn join(&mut self, tenant: &Tenant) {
        let new = Account { served: self.now, waiting: 0 };
        let account = self.accounts.entry(tenant.clone()).or_insert(new);
        account.waiting += 1;
        if account.waiting == 1 {
            let entry = (account.served, tenant.clone());
            self.idle.remove(&entry);
            self.active.insert(entry);
        }
    }

    /// An item of `tenant` waits no more. Comes after its charge.
    pub(super) fn leave(&mut self, tenant: &Tenant) {
        let Some(account) = self.accounts.get_mut(tenant) else { return };
        account.waiting -= 1;
        if account.waiting == 0 {
            let entry = (account.served, tenant.clone());
            self.active.remove(&entry);
            self.idle.insert(entry);
            self.advance();
        }
    }

    /// An item of `tenant` takes `tokens`.
    pub(super) fn charge(&mut self, tenant: &Tenant, tokens: usize) {
        let Some(account) = self.accounts.get_mut(tenant) else { return };
        let mut entry = (account.served, tenant.clone());
        account.served = account.served.saturating_add(tokens as u64);
        if self.active.remove(&entry) {
            entry.0 = account.served;
            self.active.insert(entry);
        }
        self.advance();
    }

    /// The tenant whose turn it is had `served`.
    pub(super) fn reach(&mut self, served: u64) {
        self.now = self.now.max(served);
        self.advance();
    }

    fn advance(&mut self) {
        // Where nobody waits the slate is clean: nobody can be kept waiting by what was.
        let floor = self.active.first().or(self.idle.last()).map_or(0, |&(served, _)| served);
        self.now = self.now.max(floor);
        while let Some((served, _)) = self.idle.first()
            && (*served <= self.now || self.idle.len() > REMEMBERED)
            && let Some((served, tenant)) = self.idle.pop_first()
        {
            self.now = self.now.max(served);
            self.accounts.remove(&tenant);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.active.is_empty() && self.idle.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_tenants_are_forgotten() {
        let mut service = Service::default();
        let stays = Tenant("stays".into());
        service.join(&stays);
        for n in 0..10 * REMEMBERED {
            let tenant = Tenant(n.to_string().into());
            service.join(&tenant);
            service.charge(&tenant, 1 + n);
            service.leave(&tenant);
        }
        assert!(service.accounts.len() <= REMEMBERED + 1);
        service.leave(&stays);
        assert!(service.is_empty());
    }
}
