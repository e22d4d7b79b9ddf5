//! Text that compresses as English does: its common words, and a vocabulary that follows Zipf's law behind them.

use super::dice::{Dice, Ranks};
use std::collections::HashSet;

/// Words of the vocabulary.
const VOCABULARY: usize = 12_000;

/// The most frequent words of business English, roughly in order; half of all running text is made of these.
const COMMON: &str = "the to and of a in for you is on that we be with it this are as have please from will i your by \
    not or at our if all can an has any but was would they which there me my so please thanks if been more when what \
    should could about do up one time new also need meeting into out their may other only no he she after email \
    project first now let know how some these than then who were them over just two attached regards kind team work \
    call week date today tomorrow order price offer contract invoice payment account customer report figures quarter \
    delivery number details draft version review before between because through during each next last sent send \
    change changes file update question agree costs hours plan office phone see below find best dear hello";

const STARTS: &[&str] = &[
    "b", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "t", "v", "w", "st", "tr", "pl", "ch", "sh", "br",
    "gr", "",
];
const MIDDLES: &[&str] = &["a", "e", "i", "o", "u", "ea", "ou", "ai", "io"];
const ENDS: &[&str] = &["", "", "n", "r", "s", "t", "l", "m", "nd", "st", "ng", "rt", "ck", "d"];

pub(super) struct Language {
    words: Vec<String>,
    ranks: Ranks,
}

impl Language {
    pub(super) fn new(dice: &mut Dice) -> Self {
        let mut words: Vec<String> = Vec::with_capacity(VOCABULARY);
        let mut known = HashSet::new();
        for word in COMMON.split_whitespace() {
            if known.insert(word.to_owned()) {
                words.push(word.to_owned());
            }
        }
        while words.len() < VOCABULARY {
            let mut word = String::new();
            for _ in 0..dice.between(1, 4) {
                word += *dice.one(STARTS);
                word += *dice.one(MIDDLES);
                word += *dice.one(ENDS);
            }
            // A few words of other languages, so that encodings have something to do.
            if dice.percent(1) {
                word += *dice.one(&["é", "ü", "ø", "ß"]);
            }
            if word.len() > 2 && known.insert(word.clone()) {
                words.push(word);
            }
        }
        Self { words, ranks: Ranks::new(VOCABULARY, 3) }
    }

    pub(super) fn word(&self, dice: &mut Dice) -> &str {
        &self.words[self.ranks.draw(dice)]
    }

    /// A rarer word, for names of people and files; ASCII.
    pub(super) fn name(&self, dice: &mut Dice) -> &str {
        loop {
            let word = &self.words[dice.between(200, VOCABULARY)];
            if word.is_ascii() && word.len() > 3 {
                return word;
            }
        }
    }

    /// A subject: 3 to 8 words, ASCII.
    pub(super) fn subject(&self, dice: &mut Dice) -> String {
        let mut subject = capital(self.name(dice));
        for _ in 0..dice.between(2, 8) {
            let word = self.word(dice);
            if word.is_ascii() {
                subject.push(' ');
                subject += word;
            }
        }
        if dice.percent(25) {
            subject += &format!(" {}", dice.between(1_000, 99_999));
        }
        subject
    }

    /// Sentences in paragraphs, lines ended by LF, at least `length` octets.
    pub(super) fn text(&self, dice: &mut Dice, length: usize) -> String {
        let mut text = String::with_capacity(length + 200);
        while text.len() < length {
            for _ in 0..dice.between(2, 6) {
                self.sentence(dice, &mut text);
                text.push(' ');
            }
            text.pop();
            text.push('\n');
        }
        text
    }

    fn sentence(&self, dice: &mut Dice, text: &mut String) {
        let words = dice.between(5, 22);
        for place in 0..words {
            let word = self.word(dice);
            match place {
                0 => text.push_str(&capital(word)),
                _ => text.push_str(word),
            }
            if dice.percent(3) {
                text.push_str(&format!(" {}", dice.below(20_000)));
            }
            if place + 1 < words {
                text.push_str(if dice.percent(9) { ", " } else { " " });
            }
        }
        text.push('.');
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
