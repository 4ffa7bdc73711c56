//! Where the boxes of a picture stand, in pixels: columns of boxes, neighbours close to each other.

use super::picture::Picture;

/// Height of a table's row.
pub(super) const ROW: f64 = 19.0;
/// Height of a box's head.
pub(super) const HEAD: f64 = 42.0;
/// Room below the last row.
const FOOT: f64 = 7.0;
/// Room between boxes of a column.
const BELOW: f64 = 30.0;
/// Room between columns, where the lines run.
pub(super) const GUTTER: f64 = 150.0;
/// Width of a letter of the picture's font.
pub(super) const LETTER: f64 = 6.63;

/// A box with its place.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) height: f64,
    pub(super) column: usize,
}

/// All places, and how large the whole is.
pub(super) struct Layout {
    pub(super) places: Vec<Place>,
    /// Width of every box.
    pub(super) width: f64,
    pub(super) total_width: f64,
    pub(super) total_height: f64,
}

/// How many columns of a character a text takes; those of East Asian scripts take two.
pub(super) fn letters(text: &str) -> usize {
    text.chars().map(letter).sum()
}

fn letter(c: char) -> usize {
    let is_wide = matches!(u32::from(c), 0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd);
    1 + usize::from(is_wide)
}

/// The text, cut to so many letters.
pub(super) fn cut(text: &str, most: usize) -> String {
    if letters(text) <= most {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += letter(c);
        if used > most {
            break;
        }
        out.push(c);
    }
    out + "…"
}

pub(super) fn layout(picture: &Picture, top: f64, margin: f64) -> Layout {
    let longest = |of: &dyn Fn(&super::picture::Schema) -> usize| {
        picture.boxes.iter().map(of).max().unwrap_or(0)
    };
    let rows = longest(&|schema| {
        let rows = schema
            .rows
            .iter()
            .map(|row| letters(&row.name) + letters(&row.size) + 6);
        rows.max().unwrap_or(0)
    });
    let heads = longest(&|schema| letters(&schema.title).max(letters(&schema.subtitle)) + 4);
    let width = rows.max(heads).clamp(24, 46) as f64 * LETTER;
    let heights: Vec<f64> = picture
        .boxes
        .iter()
        .map(|schema| {
            HEAD + schema.rows.len() as f64 * ROW + if schema.rows.is_empty() { 0.0 } else { FOOT }
        })
        .collect();
    let columns = columns(picture, &heights, width);
    let mut places = vec![Place::default(); picture.boxes.len()];
    let mut bottom = top;
    for (column, boxes) in columns.iter().enumerate() {
        let mut y = top;
        for at in boxes {
            let x = margin + column as f64 * (width + GUTTER);
            places[*at] = Place {
                x,
                y,
                height: heights[*at],
                column,
            };
            y += heights[*at] + BELOW;
            bottom = y.max(bottom);
        }
    }
    let used = columns.len().max(1) as f64;
    Layout {
        places,
        width,
        total_width: margin * 2.0 + used * width + (used - 1.0) * GUTTER + GUTTER / 2.0,
        total_height: bottom,
    }
}

/// The boxes of every column, top to bottom.
fn columns(picture: &Picture, heights: &[f64], width: f64) -> Vec<Vec<usize>> {
    let order = order(picture);
    let total: f64 = heights.iter().map(|height| height + BELOW).sum();
    let tallest = heights.iter().copied().fold(0.0, f64::max);
    // About half as wide again as it is high.
    let wanted = (total * 1.5 / (width + GUTTER)).sqrt().round().max(1.0);
    // The lowest height at which the boxes, in this order, fit into so many columns.
    let mut height = (total / wanted).max(tallest + BELOW);
    loop {
        let columns = filled(&order, heights, height);
        if columns.len() as f64 <= wanted {
            return columns;
        }
        height *= 1.04;
    }
}

fn filled(order: &[usize], heights: &[f64], height: f64) -> Vec<Vec<usize>> {
    let mut columns: Vec<Vec<usize>> = Vec::new();
    let mut used = f64::INFINITY;
    for at in order {
        let needed = heights[*at] + BELOW;
        if used + needed > height || columns.is_empty() {
            columns.push(Vec::new());
            used = 0.0;
        }
        used += needed;
        if let Some(column) = columns.last_mut() {
            column.push(*at);
        }
    }
    columns
}

/// The order of the boxes: along the flow where there is one, and otherwise so that boxes with many keys
/// between them are near each other (each box moves to the middle of those it is joined to, a few times).
fn order(picture: &Picture) -> Vec<usize> {
    let boxes = picture.boxes.len();
    let mut order: Vec<usize> = (0..boxes).collect();
    let mut position: Vec<f64> = (0..boxes).map(|at| at as f64).collect();
    for _ in 0..12 {
        let mut sum: Vec<f64> = position.clone();
        let mut weight = vec![1.0; boxes];
        for line in picture.lines.iter().filter(|line| line.from.0 != line.to.0) {
            let (a, b) = (line.from.0, line.to.0);
            let keys = (line.keys as f64).sqrt();
            sum[a] += position[b] * keys;
            weight[a] += keys;
            sum[b] += position[a] * keys;
            weight[b] += keys;
        }
        let wanted: Vec<f64> = sum
            .iter()
            .zip(&weight)
            .map(|(sum, weight)| sum / weight)
            .collect();
        order.sort_by(|a, b| {
            let zone = |at: usize| picture.boxes[at].zone.unwrap_or(usize::MAX);
            zone(*a)
                .cmp(&zone(*b))
                .then(wanted[*a].total_cmp(&wanted[*b]))
                .then(a.cmp(b))
        });
        for (at, which) in order.iter().enumerate() {
            position[*which] = at as f64;
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("longer", 5), "long…");
        assert_eq!(cut("日本語", 5), "日本…");
    }
}
