//! Sets of numbers as ranges: `3, 5-9`. However many they are, their text stays as short as their gaps allow.

use serde::Serialize;

/// Numbers in ascending order, joined where they follow each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers(Vec<(u64, u64)>);

impl Numbers {
    /// Adds a number that is not smaller than all before it.
    pub fn push(&mut self, number: u64) {
        self.push_range(number, number);
    }

    /// Adds the numbers from `first` to `last`; `first` is not smaller than all before it. None when `last` is smaller.
    pub fn push_range(&mut self, first: u64, last: u64) {
        if last < first {
            return;
        }
        match self.0.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => self.0.push((first, last)),
        }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, first and last of each.
    #[must_use]
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.0
    }
}

impl std::fmt::Display for Numbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}

impl Serialize for Numbers {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Numbers {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut numbers = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let parsed = first.parse().and_then(|first| Ok((first, last.parse()?)));
            let (first, last) = parsed.map_err(serde::de::Error::custom)?;
            numbers.push_range(first, last);
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        let mut numbers = Numbers::default();
        [3, 5, 6, 7, 7, 9].iter().for_each(|n| numbers.push(*n));
        numbers.push_range(10, 20);
        numbers.push_range(30, 29);
        assert_eq!(numbers.to_string(), "3, 5-7, 9-20");
        assert_eq!(numbers.count(), 16);
        let json = serde_json::to_string(&numbers).expect("writes");
        assert_eq!(serde_json::from_str::<Numbers>(&json).expect("reads"), numbers);
    }
}
