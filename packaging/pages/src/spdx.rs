//! Which of the licences that a crate offers we take.

/// The licences that must be kept to at once, of an SPDX expression: where there is a choice,
/// the one whose text Debian has already, else the one that asks least.
pub(crate) fn choose(expression: &str) -> Vec<String> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words };
    let mut chosen = parser.alternatives();
    chosen.sort();
    chosen.dedup();
    chosen
}

struct Parser<'a> {
    words: &'a [&'a str],
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn accept(&mut self, word: &str) -> bool {
        let there = self.words.first() == Some(&word);
        if there {
            self.next();
        }
        there
    }

    fn alternatives(&mut self) -> Vec<String> {
        let mut best = self.together();
        while self.accept("OR") {
            let other = self.together();
            if cost(&other) < cost(&best) {
                best = other;
            }
        }
        best
    }

    fn together(&mut self) -> Vec<String> {
        let mut all = self.one();
        while self.accept("AND") {
            all.extend(self.one());
        }
        all
    }

    fn one(&mut self) -> Vec<String> {
        if self.accept("(") {
            let inner = self.alternatives();
            self.accept(")");
            return inner;
        }
        let mut name = self.next().unwrap_or("unknown").to_owned();
        if self.accept("WITH") {
            name = format!("{name} WITH {}", self.next().unwrap_or("unknown"));
        }
        vec![name]
    }
}

fn cost(licences: &[String]) -> usize {
    let one = |licence: &String| match licence.as_str() {
        "Apache-2.0" => 1,
        "CC0-1.0" | "Unlicense" | "0BSD" | "MIT-0" => 2,
        "MIT" => 3,
        _ => 4,
    };
    licences.iter().map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::choose;

    #[test]
    fn the_licence_that_debian_has_is_taken() {
        assert_eq!(choose("MIT OR Apache-2.0"), ["Apache-2.0"]);
        assert_eq!(choose("Apache-2.0/MIT"), ["Apache-2.0"]);
        assert_eq!(choose("Unlicense OR MIT"), ["Unlicense"]);
        assert_eq!(
            choose("(MIT OR Apache-2.0) AND Unicode-3.0"),
            ["Apache-2.0", "Unicode-3.0"]
        );
        assert_eq!(choose("Apache-2.0 WITH LLVM-exception OR MIT"), ["MIT"]);
        assert_eq!(choose("Apache-2.0 AND ISC"), ["Apache-2.0", "ISC"]);
    }
}
