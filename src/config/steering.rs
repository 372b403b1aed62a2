//! Who is to own which connections, where several lcores poll: the key, the table, and the zones that are steered by
//! subscriber. What is said here is held against [`weir_shard::steering`] when it is read, so that it can only fail
//! later for what the machine has.

use serde::{Deserialize, Serialize};
use toml::Spanned;
use weir_shard::steering::{
    AddressSpan, KeyWord, MAX_TABLE_SIZE, Steering as Owners, SteeringConfig, SteeringError, Subscribers,
    TABLE_SIZE,
};

use super::check::{Fault, fault, number};
use super::file;

/// Which side of the subscribers' zone a port is on: what its card hashes, if it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Towards the subscribers: the source address alone.
    Inside,
    /// Towards the rest of the world: the destination address alone.
    Outside,
}

impl Role {
    /// The word for it, if it is one.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        [Self::Inside, Self::Outside].into_iter().find(|role| role.name() == word)
    }

    /// Its word in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inside => "inside",
            Self::Outside => "outside",
        }
    }
}

/// How packets find the lcore that owns their connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// What the hash key is made of; `None` for one that is drawn at each start.
    pub key_word: Option<KeyWord>,
    /// Entries of the redirection table; `None` for as many as the ports' cards have.
    pub table_size: Option<usize>,
    /// Zones that are steered by subscriber, by number.
    pub subscribers: Vec<(u16, Subscribers)>,
}

impl Steering {
    /// Who owns what among `shards`, whose key is made of `random` bits unless a word is configured.
    ///
    /// # Errors
    /// There are too many shards, or more than the table has entries.
    pub fn owners(&self, shards: usize, random: u16) -> Result<Owners, SteeringError> {
        Owners::new(&SteeringConfig {
            shards,
            word: self.key_word.unwrap_or(KeyWord::from_random(random)),
            table_size: self.table_size.unwrap_or(TABLE_SIZE),
            subscribers: self.subscribers.clone(),
        })
    }
}

/// How a zone is steered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scheme {
    Symmetric,
    Subscriber,
}

pub(super) fn check(file: file::Steering) -> Result<Steering, Fault> {
    let table_size = match file.table_size {
        Some(given) => {
            let size: usize = number("table_size", Some(given.clone()), 1..=MAX_TABLE_SIZE as i64, 1)?;
            if !size.is_power_of_two() {
                let near = size.next_power_of_two();
                return Err(fault(
                    &given,
                    format!("table_size is {size}; it must be a power of two, as {near}"),
                ));
            }
            Some(size)
        }
        None => None,
    };
    let key_word = file.key_word.map(key_word).transpose()?;
    let mut subscribers = Vec::new();
    for zone in file.zone {
        let id = number("id", Some(zone.id.clone()), 0..=i64::from(u16::MAX), 0)?;
        match zone.scheme.get_ref() {
            Scheme::Symmetric => {
                if let Some(given) = zone.pool.as_ref().or(zone.inside.as_ref()) {
                    return Err(fault(given, "addresses belong to the scheme \"subscriber\""));
                }
            }
            Scheme::Subscriber => {
                let pool = spans(&zone.id, "pool", zone.pool)?;
                let inside = spans(&zone.id, "inside", zone.inside)?;
                subscribers.push((id, Subscribers { pool, inside }));
            }
        }
        let so_far = Steering { key_word, table_size, subscribers: subscribers.clone() };
        so_far.owners(1, 0).map_err(|error| fault(&zone.id, error))?;
    }
    subscribers.sort_by_key(|(zone, _)| *zone);
    Ok(Steering { key_word, table_size, subscribers })
}

fn key_word(given: Spanned<i64>) -> Result<KeyWord, Fault> {
    let bits: u16 = number("key_word", Some(given.clone()), 0..=i64::from(u16::MAX), 0)?;
    let word = KeyWord::from_random(bits);
    if word.bits() == bits {
        return Ok(word);
    }
    let message =
        format!("a key that repeats {bits:#06x} does not spread connections; {:#06x} does", word.bits());
    Err(fault(&given, message))
}

/// Addresses of a zone, whose place is told where there are none.
fn spans(
    zone: &Spanned<i64>,
    key: &str,
    given: Option<Spanned<Vec<Spanned<String>>>>,
) -> Result<Vec<AddressSpan>, Fault> {
    let given = given.ok_or_else(|| {
        fault(zone, format!("the scheme \"subscriber\" wants {key} = [\"192.0.2.0/24\", ...]"))
    })?;
    given.get_ref().iter().map(|text| text.get_ref().parse().map_err(|error| fault(text, error))).collect()
}

/// A role means nothing where no zone has subscribers.
pub(super) fn check_roles(steering: &Steering, bridges: &[file::Bridge]) -> Result<(), Fault> {
    let mut roles = bridges.iter().flat_map(|bridge| &bridge.port).filter_map(|port| port.role.as_ref());
    match roles.next() {
        Some(role) if steering.subscribers.is_empty() => Err(fault(
            role,
            "a role is for the scheme \"subscriber\", which no [[steering.zone]] has; leave it out",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, parse};

    fn config(text: &str) -> Result<Config, String> {
        parse(text, Path::new("w.toml")).map_err(|error| error.to_string())
    }

    const ZONE: &str = "[[steering.zone]]\nid = 1\nscheme = \"subscriber\"\n";

    #[test]
    fn zones_are_symmetric_unless_they_have_subscribers() {
        let text = format!(
            "[steering]\nkey_word = 0x6d5a\ntable_size = 128\n{ZONE}pool = [\"192.0.2.0/29\", \"192.0.2.9\"]\n\
             inside = [\"100.64.0.0/10\"]\n[[steering.zone]]\nid = 0\nscheme = \"symmetric\"\n"
        );
        let steering = config(&text).unwrap().steering;
        assert_eq!((steering.key_word, steering.table_size), (Some(KeyWord::WELL_KNOWN), Some(128)));
        let (zone, addresses) = &steering.subscribers[0];
        assert_eq!((*zone, addresses.pool.len(), addresses.inside.len()), (1, 2, 1));
        let owners = steering.owners(3, 7).unwrap();
        assert_eq!((owners.shards(), owners.table().len(), owners.word()), (3, 128, KeyWord::WELL_KNOWN));
        assert_eq!(config("").unwrap().steering, Steering::default());
    }

    #[test]
    fn a_key_that_is_not_given_is_made_of_the_random_bits() {
        let steering = Steering::default();
        assert_eq!(steering.owners(2, 0x1234).unwrap().word(), KeyWord::from_random(0x1234));
        assert_eq!(steering.owners(2, 1).unwrap().table().len(), TABLE_SIZE);
        assert!(steering.owners(65, 1).is_err() && steering.owners(0, 1).is_err());
    }

    #[test]
    fn what_cannot_steer_is_pointed_at() {
        let inside = "inside = [\"10.0.0.0/8\"]\n";
        for (text, message) in [
            ("[steering]\nkey_word = 65536\n".to_owned(), "2:12: key_word is 65536; it must be 0 to 65535"),
            (
                "[steering]\nkey_word = 0x0001\n".to_owned(),
                "2:12: a key that repeats 0x0001 does not spread connections; 0x",
            ),
            (
                "[steering]\ntable_size = 100\n".to_owned(),
                "2:14: table_size is 100; it must be a power of two, as 128",
            ),
            ("[steering]\ntable_size = 4096\n".to_owned(), "2:14: table_size is 4096; it must be 1 to 2048"),
            (format!("{ZONE}{inside}"), "2:6: the scheme \"subscriber\" wants pool = "),
            (format!("{ZONE}pool = [\"192.0.2.1\"]\n"), "2:6: the scheme \"subscriber\" wants inside = "),
            (format!("{ZONE}pool = []\n{inside}"), "2:6: zone 1 is steered by subscriber but has no public"),
            (format!("{ZONE}pool = [\"192.0.2\"]\n{inside}"), "4:9: \"192.0.2\" is no address"),
            (format!("{ZONE}pool = [\"192.0.2.1/24\"]\n{inside}"), "4:9: 192.0.2.1/24 has bits"),
            (format!("{ZONE}pool = [\"10.1.0.0/16\"]\n{inside}"), "2:6: zone 1: 10.0.0.0/8 and 10.1.0.0/16"),
            (
                format!("{ZONE}pool = [\"192.0.2.1\"]\n{inside}{ZONE}pool = [\"192.0.2.1\"]\n{inside}"),
                "7:6: zone 1 is steered by subscriber twice",
            ),
            (
                "[[steering.zone]]\nid = 1\nscheme = \"symmetric\"\npool = []\n".to_owned(),
                "4:8: addresses belong to the scheme \"subscriber\"",
            ),
            ("[[steering.zone]]\nid = 1\nscheme = \"subscribers\"\n".to_owned(), "3:10: unknown value"),
            ("[[steering.zone]]\nid = 70000\nscheme = \"symmetric\"\n".to_owned(), "2:6: id is 70000"),
            ("[steering]\nkeyword = 1\n".to_owned(), "2:1: unknown key `keyword`; did you mean `key_word`?"),
        ] {
            let error = config(&text).unwrap_err();
            assert!(error.starts_with(&format!("w.toml:{message}")), "{text}: {error}");
        }
    }

    #[test]
    fn a_role_is_for_zones_with_subscribers() {
        let port = "[[bridge]]\nname = \"b\"\n[[bridge.port]]\nname = \"p\"\ndevargs = \"net_null0\"\nrole = \"inside\"\n";
        let error = config(port).unwrap_err();
        assert!(error.starts_with("w.toml:6:8: a role is for the scheme"), "{error}");
        let text = format!("{port}{ZONE}pool = [\"192.0.2.1\"]\ninside = [\"10.0.0.0/8\"]\n");
        assert_eq!(config(&text).unwrap().bridges[0].ports[0].role, Some(Role::Inside));
        assert_eq!(Role::named("outside"), Some(Role::Outside));
    }
}
