//! Paths into values that have a structure: `$.customer.iban`, `$.items[*].name`, `$..birthday`.

use super::rules;

/// A step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// A field, with `*` for anything within its name.
    Field(String),
    /// An element of a list; `None`: each.
    Element(Option<usize>),
    /// Any number of steps.
    Any,
}

/// A path, and the attributes that it is for.
#[derive(Clone, Debug)]
pub(super) struct PathRule {
    attribute: Option<String>,
    segments: Vec<Segment>,
    /// The attribute as a first step, where fields of an object are what attributes are elsewhere.
    from_fields: Vec<Segment>,
}

/// What is left of a path at some value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Active<'a>(&'a [Segment]);

/// A step down from a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Field(&'a str),
    Element(usize),
}

impl PathRule {
    /// Reads `attribute $.path` or `$.path`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (attribute, path) = match text.trim().rsplit_once(char::is_whitespace) {
            Some((attribute, path)) => (Some(attribute.trim()), path),
            None => (None, text.trim()),
        };
        let segments = segments(path).ok_or(
            "must be a path such as $.customer.iban, $.items[*].name or $..birthday, after the attribute that it is for, if it is for one",
        )?;
        let first = attribute.map(|name| Segment::Field(name.to_owned()));
        let rule = Self {
            attribute: attribute.map(str::to_owned),
            from_fields: first.into_iter().chain(segments.iter().cloned()).collect(),
            segments,
        };
        match rules::longest_part(&rule.from_fields) {
            Some(_) => Ok(rule),
            None => Err("must name a field or an attribute of at least two characters".to_owned()),
        }
    }

    /// What stands in whatever the path can hit.
    pub(super) fn part(&self) -> &str {
        rules::longest_part(&self.from_fields).unwrap_or_default()
    }

    pub(super) fn at(&self, attribute: Option<&str>) -> Option<Active<'_>> {
        let is_for = match (&self.attribute, attribute) {
            (None, _) => true,
            (Some(pattern), Some(name)) => is_like(pattern, name),
            (Some(_), None) => false,
        };
        is_for.then_some(Active(&self.segments))
    }

    pub(super) fn at_fields(&self) -> Active<'_> {
        Active(&self.from_fields)
    }
}

fn segments(path: &str) -> Option<Vec<Segment>> {
    let mut rest = path.strip_prefix('$')?;
    let mut segments = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            segments.push(Segment::Any);
            // What follows is a field, as after one point, or an element.
            if after.is_empty() {
                return None;
            }
            rest = after;
            if rest.starts_with('[') {
                continue;
            }
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            let (inside, after) = after.split_once(']')?;
            let quoted = inside
                .strip_prefix(['\'', '"'])
                .and_then(|name| name.strip_suffix(['\'', '"']));
            segments.push(match (inside, quoted) {
                ("*", _) => Segment::Element(None),
                (_, Some(name)) if !name.is_empty() => Segment::Field(name.to_owned()),
                (number, _) => Segment::Element(Some(number.parse().ok()?)),
            });
            rest = after;
            continue;
        } else {
            return None;
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if name.is_empty() {
            return None;
        }
        segments.push(Segment::Field(name.to_owned()));
        rest = after;
    }
    (!segments.is_empty()).then_some(segments)
}

/// Takes a step: what is left of each path, and whether one of them ends here.
pub(super) fn step<'a>(active: &[Active<'a>], step: Step<'_>) -> (Vec<Active<'a>>, bool) {
    let (mut left, mut is_end) = (Vec::new(), false);
    let mut open = active.to_vec();
    while !open.is_empty() {
        let mut again = Vec::new();
        for Active(segments) in std::mem::take(&mut open) {
            let Some((first, rest)) = segments.split_first() else {
                continue;
            };
            let is_hit = match (first, step) {
                (Segment::Any, _) => {
                    add(&mut left, Active(segments));
                    again.push(Active(rest));
                    continue;
                }
                (Segment::Field(pattern), Step::Field(name)) => is_like(pattern, name),
                (Segment::Element(None), Step::Element(_)) => true,
                (Segment::Element(Some(wanted)), Step::Element(at)) => *wanted == at,
                _ => false,
            };
            match (is_hit, rest.is_empty()) {
                (true, true) => is_end = true,
                (true, false) => add(&mut left, Active(rest)),
                (false, _) => {}
            }
        }
        open = again;
    }
    (left, is_end)
}

/// Adds what is left of a path, once: `..` may lead to the same place in many ways.
fn add<'a>(left: &mut Vec<Active<'a>>, active: Active<'a>) {
    if !left.iter().any(|known| std::ptr::eq(known.0, active.0)) {
        left.push(active);
    }
}

/// Whether a name is as a pattern with `*` has it; letters are not told apart by case.
fn is_like(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut of) = (0, 0);
    // Where the last `*` stands, and how much of the name it has taken.
    let mut star = None;
    while at < name.len() {
        match pattern.get(of) {
            Some(b'*') => {
                star = Some((of, at));
                of += 1;
            }
            Some(byte) if name.get(at).is_some_and(|is| is.eq_ignore_ascii_case(byte)) => {
                at += 1;
                of += 1;
            }
            _ => match star {
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    (of, at) = (star_at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern
        .get(of..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, steps: &[Step<'_>], expected: bool) {
        let rule = PathRule::parse(path).unwrap();
        let mut active = vec![rule.at(None).unwrap()];
        let mut is_end = false;
        for taken in steps {
            (active, is_end) = step(&active, *taken);
        }
        assert_eq!(is_end, expected, "{path} {steps:?}");
    }

    #[test]
    fn a_path_ends_where_its_last_step_does() {
        use Step::{Element, Field};
        check("$.a.name", &[Field("a"), Field("name")], true);
        check("$.a.name", &[Field("a")], false);
        check("$.a.name", &[Field("b"), Field("name")], false);
        check(
            "$.all[*].name",
            &[Field("all"), Element(3), Field("NAME")],
            true,
        );
        check("$.all[1]", &[Field("all"), Element(3)], false);
        check("$..name", &[Field("name")], true);
        check("$..name", &[Field("x"), Element(0), Field("name")], true);
        check("$['a.b'].c*", &[Field("a.b"), Field("cde")], true);
        check("$.*name", &[Field("first_name")], true);
    }

    #[test]
    fn what_is_no_path_says_so() {
        for path in [
            "", "a", "$", "$.", "$..", "$.a[", "$.a[x]", "$.*", "x $[*]$",
        ] {
            assert!(PathRule::parse(path).is_err(), "{path}");
        }
        assert!(PathRule::parse("an.attribute $.*").is_ok());
    }
}
