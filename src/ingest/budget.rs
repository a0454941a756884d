//! A bound on what the threads of an ingest hold in memory together.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Bytes of files being read and decoded, over all threads; and once more of what comes out of shards and off the web.
pub(crate) const FILE_BYTES: u64 = 128 << 20;

/// Bytes of pixels and coefficients that decoders work on, over all threads: two PNGs of 24 megapixels, or a hundred JPEGs of
/// that size, which are reduced while they are decoded.
pub(crate) const DECODED_BYTES: u64 = 448 << 20;

/// So much may be out at a time. A request for more waits until nothing else is out, and is then granted: a huge photo is
/// decoded alone instead of never, or many at once. So the bound is the limit, or the one request that is larger.
///
/// Whoever holds a permit of one budget may ask another; the order is file bytes, then decoded bytes, so nobody waits in a circle.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    out: Mutex<u64>,
    returned: Condvar,
}

/// What was taken; given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    budget: Arc<Budget>,
    amount: u64,
}

/// Bytes with their permit.
#[derive(Debug)]
pub(crate) struct Held {
    pub(super) bytes: Vec<u8>,
    pub(super) permit: Permit,
}

impl Held {
    /// Waits until there is room for the bytes.
    pub(super) fn new(bytes: Vec<u8>, budget: &Arc<Budget>) -> Held {
        Held::with(bytes, None, budget)
    }

    /// The same, where there may be a permit for them already.
    pub(super) fn with(bytes: Vec<u8>, permit: Option<Permit>, budget: &Arc<Budget>) -> Held {
        let mut permit = permit.unwrap_or_else(|| budget.take(bytes.len() as u64));
        permit.keep(bytes.len() as u64);
        Held { bytes, permit }
    }
}

impl Budget {
    pub(super) fn new(limit: u64) -> Budget {
        Budget { limit, out: Mutex::new(0), returned: Condvar::new() }
    }

    /// Waits until `amount` is free.
    pub(super) fn take(self: &Arc<Self>, amount: u64) -> Permit {
        let amount = amount.min(self.limit);
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        while *out + amount > self.limit {
            out = self.returned.wait(out).unwrap_or_else(PoisonError::into_inner);
        }
        *out += amount;
        Permit { budget: Arc::clone(self), amount }
    }
}

impl Permit {
    /// Gives back what is more than `amount`.
    fn keep(&mut self, amount: u64) {
        let rest = self.amount.saturating_sub(amount);
        self.amount -= rest;
        drop(Permit { budget: Arc::clone(&self.budget), amount: rest });
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.budget.out.lock().unwrap_or_else(PoisonError::into_inner) -= self.amount;
        self.budget.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn never_more_out_than_the_limit_and_giants_alone() {
        let budget = Arc::new(Budget::new(100));
        let (out, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (budget, out, most) = (&budget, &out, &most);
                scope.spawn(move || {
                    for step in 0..200 {
                        let wanted = if step % 50 == thread { 100_000 } else { (step * 7 + thread) % 60 };
                        let permit = budget.take(wanted);
                        let now = out.fetch_add(permit.amount, Ordering::SeqCst) + permit.amount;
                        most.fetch_max(now, Ordering::SeqCst);
                        std::thread::yield_now();
                        out.fetch_sub(permit.amount, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!((60..=100).contains(&most.into_inner()));
        assert_eq!(*budget.out.lock().unwrap(), 0);
    }

    #[test]
    fn what_was_taken_for_more_bytes_than_came_goes_back_at_once() {
        let budget = Arc::new(Budget::new(100));
        let held = Held::with(vec![0; 10], Some(budget.take(80)), &budget);
        assert_eq!(*budget.out.lock().unwrap(), 10);
        drop(held);
        assert_eq!(*budget.out.lock().unwrap(), 0);
    }
}
