//! A set of job numbers, nearly all of which are neighbours.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A set of job numbers, kept as ranges: a hundred thousand jobs that have ended take as much
/// room as one. In JSON it is a list of `[first, last]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdSet {
    /// First to last; ranges neither overlap nor touch.
    ranges: BTreeMap<u64, u64>,
}

impl IdSet {
    /// Whether the number is in the set.
    pub fn contains(&self, id: u64) -> bool {
        self.range_before(id).is_some_and(|(_, last)| id <= last)
    }

    /// Adds a number.
    pub fn insert(&mut self, id: u64) {
        self.insert_range(id, id);
    }

    /// Adds all numbers from `first` to `last`, both included.
    pub fn insert_range(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        let (mut first, mut last) = (first, last);
        if let Some((start, end)) = self.range_before(first)
            && end.saturating_add(1) >= first
        {
            (first, last) = (start, last.max(end));
        }
        // what begins inside the range, or right behind it, becomes part of it
        while let Some((&start, &end)) = self
            .ranges
            .range(first..=last.saturating_add(1))
            .next_back()
        {
            last = last.max(end);
            self.ranges.remove(&start);
        }
        self.ranges.insert(first, last);
    }

    /// The numbers from `first` to `last` that are not in the set.
    pub fn missing(&self, first: u64, last: u64) -> impl Iterator<Item = u64> + '_ {
        let mut next = first;
        let last = last.min(u64::MAX - 1); // so that `next` can go past it
        std::iter::from_fn(move || {
            while let Some((_, end)) = self.range_before(next) {
                if next > end {
                    break;
                }
                next = end.checked_add(1)?;
            }
            if next > last {
                return None;
            }
            let id = next;
            next = next.saturating_add(1);
            Some(id)
        })
    }

    /// Returns whether there is no number in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Returns the number of ids in the set.
    pub fn count(&self) -> u64 {
        let lengths = self
            .ranges
            .iter()
            .map(|(first, last)| last.saturating_sub(*first).saturating_add(1));
        lengths.fold(0, u64::saturating_add)
    }

    /// The numbers in the set, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// Removes a number.
    pub fn remove(&mut self, id: u64) {
        let Some((first, last)) = self.range_before(id) else {
            return;
        };
        if id > last {
            return;
        }
        self.ranges.remove(&first);
        if let Some(before) = id.checked_sub(1)
            && first <= before
        {
            self.ranges.insert(first, before);
        }
        if let Some(after) = id.checked_add(1)
            && after <= last
        {
            self.ranges.insert(after, last);
        }
    }

    /// The highest number in the set.
    pub fn highest(&self) -> Option<u64> {
        self.ranges.last_key_value().map(|(_, last)| *last)
    }

    fn range_before(&self, id: u64) -> Option<(u64, u64)> {
        let (first, last) = self.ranges.range(..=id).next_back()?;
        Some((*first, *last))
    }
}

impl Serialize for IdSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.ranges.iter())
    }
}

impl<'de> Deserialize<'de> for IdSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut set = Self::default();
        for (first, last) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            if first > last {
                let reason = format!("[{first}, {last}]: the first is behind the last");
                return Err(de::Error::custom(reason));
            }
            set.insert_range(first, last);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn it_is_the_same_as_a_plain_set() {
        let mut state = 7u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..200 {
            let (mut ranges, mut plain) = (IdSet::default(), BTreeSet::new());
            for _ in 0..30 {
                let (first, length) = (random(100), random(8));
                ranges.insert_range(first, first + length);
                plain.extend(first..=first + length);
            }
            for id in 0..120 {
                assert_eq!(ranges.contains(id), plain.contains(&id));
            }
            let missing: Vec<_> = ranges.missing(3, 110).collect();
            let expected: Vec<_> = (3..=110).filter(|id| !plain.contains(id)).collect();
            assert_eq!(missing, expected);
            assert_eq!(ranges.highest(), plain.last().copied());
            for _ in 0..10 {
                let id = random(120);
                ranges.remove(id);
                plain.remove(&id);
            }
            let numbers: Vec<_> = ranges.numbers().collect();
            assert_eq!(numbers, plain.iter().copied().collect::<Vec<_>>());
            assert_eq!(ranges.count(), u64::try_from(plain.len()).unwrap());
            assert_eq!(ranges.is_empty(), plain.is_empty());
            let json = serde_json::to_string(&ranges).unwrap();
            assert_eq!(serde_json::from_str::<IdSet>(&json).unwrap(), ranges);
        }
    }

    #[test]
    fn neighbours_take_the_room_of_one() {
        let mut set = IdSet::default();
        for id in (0..1000).rev().chain(1000..2000) {
            set.insert(id);
        }
        assert_eq!(serde_json::to_string(&set).unwrap(), "[[0,1999]]");
        set.insert(u64::MAX);
        set.insert_range(u64::MAX - 1, u64::MAX);
        assert!(set.contains(u64::MAX));
        assert_eq!(set.missing(u64::MAX - 2, u64::MAX).count(), 1);
    }
}
