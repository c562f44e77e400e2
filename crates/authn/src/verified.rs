//! What valid signatures have said: a signature is worked out once, not for every request.
//!
//! Only what never changes is kept: that a text was signed by one of our keys, and what it says.
//! Times and the objects it is bound to are looked at every time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::service_account::Said;

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
    young: HashMap<Name, Arc<Said>>,
    /// Goes when the young are too many; who is asked for until then is young again.
    old: HashMap<Name, Arc<Said>>,
}

impl Verified {
    /// The claims of a token: those it was found to have, or what `verify` finds.
    ///
    /// # Errors
    /// Those of `verify`; they are not remembered.
    pub(crate) fn said<E>(
        &self,
        token: &str,
        verify: impl FnOnce() -> Result<Said, E>,
    ) -> Result<Arc<Said>, E> {
        let name: Name = Sha256::digest(token.as_bytes()).into();
        let known = self.with(|kept| kept.find(&name));
        if let Some(said) = known {
            return Ok(said);
        }
        let said = Arc::new(verify()?);
        self.with(|kept| kept.put(name, said.clone()));
        Ok(said)
    }

    fn with<T>(&self, look: impl FnOnce(&mut Generations) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Generations {
    fn find(&mut self, name: &Name) -> Option<Arc<Said>> {
        if let Some(claims) = self.young.get(name) {
            return Some(claims.clone());
        }
        let claims = self.old.remove(name)?;
        self.put(*name, claims.clone());
        Some(claims)
    }

    fn put(&mut self, name: Name, claims: Arc<Said>) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, claims);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service_account::{Bound, Claims};

    fn claims(id: &str) -> Said {
        let account = Bound { name: "builder".into(), uid: "u1".into() };
        Said::Requested(Claims::new("us", "default", account, vec![], (0, 1), id.into()))
    }

    fn none() -> Result<Said, &'static str> {
        Err("not verified before")
    }

    #[test]
    fn a_token_is_verified_once() {
        let verified = Verified::default();
        assert!(verified.said("token", || Ok::<_, ()>(claims("1"))).is_ok());
        let said = verified.said("token", none).unwrap();
        assert!(matches!(&*said, Said::Requested(claims) if claims.jti == "1"));
        assert!(verified.said("token2", none).is_err());
        assert!(verified.said("token2", none).is_err(), "a failure is not remembered");
    }

    #[test]
    fn tokens_in_use_outlive_those_that_are_not_and_memory_is_bounded() {
        let verified = Verified::default();
        for n in 0..10 * GENERATION {
            verified.said("used", || Ok::<_, ()>(claims("used"))).unwrap();
            let other = format!("token {n}");
            verified.said(&other, || Ok::<_, ()>(claims(&other))).unwrap();
        }
        assert!(verified.said("used", none).is_ok());
        assert!(verified.said("token 0", none).is_err());
        let kept = verified.with(|kept| kept.young.len() + kept.old.len());
        assert!(kept <= 2 * GENERATION, "{kept}");
    }
}
