//! What valid signatures have said: a signature is worked out once, not for every request.
//!
//! Only what never changes is kept: that a text was signed by one of our keys, and what it says.
//! Times and the objects it is bound to are looked at every time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::service_account::Claims;

/// Tokens of each of the two generations: one for every pod of a large node, many times over, and a
/// few megabytes at most.
const GENERATION: usize = 2048;

/// A token as it is remembered: nobody finds one in our memory.
type Name = [u8; 32];

/// Claims of tokens whose signatures held.
#[derive(Default)]
pub(crate) struct Verified(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<Name, Arc<Claims>>,
    /// Goes when the young are too many; who is asked for until then is young again.
    old: HashMap<Name, Arc<Claims>>,
}

impl Verified {
    /// The claims of a token: those it was found to have, or what `verify` finds.
    ///
    /// # Errors
    /// Those of `verify`; they are not remembered.
    pub(crate) fn claims<E>(
        &self,
        token: &str,
        verify: impl FnOnce() -> Result<Claims, E>,
    ) -> Result<Arc<Claims>, E> {
        let name: Name = Sha256::digest(token.as_bytes()).into();
        let known = self.with(|kept| kept.find(&name));
        if let Some(claims) = known {
            return Ok(claims);
        }
        let claims = Arc::new(verify()?);
        self.with(|kept| kept.put(name, claims.clone()));
        Ok(claims)
    }

    fn with<T>(&self, look: impl FnOnce(&mut Generations) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Generations {
    fn find(&mut self, name: &Name) -> Option<Arc<Claims>> {
        if let Some(claims) = self.young.get(name) {
            return Some(claims.clone());
        }
        let claims = self.old.remove(name)?;
        self.put(*name, claims.clone());
        Some(claims)
    }

    fn put(&mut self, name: Name, claims: Arc<Claims>) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, claims);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service_account::Bound;

    fn claims(id: &str) -> Claims {
        let account = Bound { name: "builder".into(), uid: "u1".into() };
        Claims::new("us", "default", account, vec![], (0, 1), id.into())
    }

    fn none() -> Result<Claims, &'static str> {
        Err("not verified before")
    }

    #[test]
    fn a_token_is_verified_once() {
        let verified = Verified::default();
        assert!(verified.claims("token", || Ok::<_, ()>(claims("1"))).is_ok());
        assert_eq!(verified.claims("token", none).unwrap().jti, "1");
        assert!(verified.claims("token2", none).is_err());
        assert!(verified.claims("token2", none).is_err(), "a failure is not remembered");
    }

    #[test]
    fn tokens_in_use_outlive_those_that_are_not_and_memory_is_bounded() {
        let verified = Verified::default();
        for n in 0..10 * GENERATION {
            verified.claims("used", || Ok::<_, ()>(claims("used"))).unwrap();
            let other = format!("token {n}");
            verified.claims(&other, || Ok::<_, ()>(claims(&other))).unwrap();
        }
        assert!(verified.claims("used", none).is_ok());
        assert!(verified.claims("token 0", none).is_err());
        let kept = verified.with(|kept| kept.young.len() + kept.old.len());
        assert!(kept <= 2 * GENERATION, "{kept}");
    }
}
