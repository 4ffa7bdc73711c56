//! The picture of schemas and keys as a standalone SVG: no scripts, no fonts, nothing fetched.

use std::collections::HashMap;

use crate::audit::words::plural;
use crate::audit::{Audit, Severity};

use super::layout::{GUTTER, HEAD, LETTER, Layout, ROW, cut, layout};
use super::picture::{Class, Line, Picture, Schema, picture};
use super::{one_line, origin, verdict};

const MARGIN: f64 = 40.0;
const TOP: f64 = 104.0;
const LEGEND: f64 = 64.0;

const STYLE: &str = "\
text{font:11px 'DejaVu Sans Mono',Menlo,Consolas,monospace;fill:#1f2937}\
.title{font-size:17px;font-weight:700}.small{fill:#6b7280}.num{fill:#6b7280;text-anchor:end}\
.box{fill:#fff;fill-opacity:.93;stroke:#9ca3af}.head{stroke:none}.name{font-weight:700;font-size:12px}\
.leftover{fill:#9ca3af;font-style:italic}.double{fill:#ede9fe}\
.critical{fill:#dc2626}.high{fill:#f59e0b}\
.line{fill:none;stroke-width:1.3;stroke-opacity:.75}.line:hover{stroke-width:3;stroke-opacity:1}\
.within{stroke:#64748b}.across{stroke:#2563eb}.against{stroke:#c026d3;stroke-width:1.8}\
.undeclared{stroke:#ef4444;stroke-dasharray:5 4}.broken{stroke:#dc2626;stroke-width:2.2}\
.count{font-size:10px;text-anchor:middle;paint-order:stroke;stroke:#f8fafc;stroke-width:3px}";

/// Head colours of zones, in the order of the flow; the last is for schemas outside of it.
const ZONES: &[&str] = &[
    "#fde68a", "#bae6fd", "#bbf7d0", "#fbcfe8", "#ddd6fe", "#fed7aa",
];
const NO_ZONE: &str = "#e5e7eb";

impl Class {
    fn as_str(self) -> &'static str {
        match self {
            Self::Within => "within",
            Self::Across => "across",
            Self::Against => "against",
            Self::Undeclared => "undeclared",
            Self::Broken => "broken",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Within => "#64748b",
            Self::Across => "#2563eb",
            Self::Against => "#c026d3",
            Self::Undeclared => "#ef4444",
            Self::Broken => "#dc2626",
        }
    }

    const ALL: &[Self] = &[
        Self::Within,
        Self::Across,
        Self::Against,
        Self::Undeclared,
        Self::Broken,
    ];
}

/// The picture as SVG.
pub fn render(audit: &Audit) -> String {
    let picture = picture(audit);
    let layout = layout(&picture, TOP, MARGIN);
    let title = headline(audit);
    let subtitle = origin(audit);
    let width = layout.total_width.max(760.0);
    let notes = picture.notes.len() as f64 * 16.0;
    let height = layout.total_height + LEGEND + notes;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n<defs>\n",
        escaped(&title)
    );
    for class in Class::ALL {
        out.push_str(&format!(
            "<marker id=\"to-{}\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
             markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0.5L8 4L0 7.5z\" fill=\"{}\"/></marker>\n",
            class.as_str(),
            class.colour()
        ));
    }
    out.push_str("</defs>\n<rect width=\"100%\" height=\"100%\" fill=\"#f8fafc\"/>\n");
    let room = ((width - MARGIN * 2.0) / LETTER) as usize;
    text(
        &mut out,
        "title",
        MARGIN,
        36.0,
        &cut(&title, room * 10 / 16),
    );
    text(&mut out, "small", MARGIN, 58.0, &cut(&subtitle, room));
    text(&mut out, "small", MARGIN, 76.0, &cut(&verdict(audit), room));
    let ports = ports(&picture, &layout);
    for (line, (from, to)) in picture.lines.iter().zip(&ports) {
        draw_line(&mut out, line, *from, *to, &picture, &layout);
    }
    for (schema, place) in picture.boxes.iter().zip(&layout.places) {
        draw_box(
            &mut out,
            schema,
            place.x,
            place.y,
            place.height,
            layout.width,
        );
    }
    if !picture.is_detailed {
        for (line, (from, to)) in picture.lines.iter().zip(&ports) {
            let (x, y) = middle(line, *from, *to, &layout);
            text(&mut out, "count", x, y + 3.0, &line.label);
        }
    }
    legend(&mut out, &picture, audit, layout.total_height + 6.0, width);
    for (at, note) in picture.notes.iter().enumerate() {
        text(
            &mut out,
            "small",
            MARGIN,
            layout.total_height + LEGEND + at as f64 * 16.0,
            &cut(note, room),
        );
    }
    out.push_str("</svg>\n");
    out
}

fn headline(audit: &Audit) -> String {
    let summary = &audit.summary;
    format!(
        "{}, {}, {}, {} broken or undeclared",
        plural(summary.schemas, "schema", "schemas"),
        plural(summary.tables, "table", "tables"),
        plural(summary.foreign_keys, "foreign key", "foreign keys"),
        crate::gate::threshold::count(summary.broken_keys as u64)
    )
}

fn draw_box(out: &mut String, schema: &Schema, x: f64, y: f64, height: f64, width: f64) {
    let head = match schema.zone {
        Some(zone) => ZONES[zone % ZONES.len()],
        None => NO_ZONE,
    };
    let letters = (width / LETTER) as usize - 4;
    out.push_str(&format!(
        "<rect class=\"box\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"6\"/>\n\
         <path class=\"head\" fill=\"{head}\" d=\"M{:.1} {:.1}v{:.1}a5.5 5.5 0 0 1 5.5 -5.5h{:.1}a5.5 5.5 0 0 1 5.5 5.5v{:.1}z\"/>\n",
        x + 0.5,
        y + HEAD - 4.0,
        -(HEAD - 10.0),
        width - 12.0,
        HEAD - 10.0
    ));
    text(
        out,
        "name",
        x + 12.0,
        y + 16.0,
        &cut(&schema.title, letters * 10 / 11),
    );
    text(
        out,
        "small",
        x + 12.0,
        y + 31.0,
        &cut(&schema.subtitle, letters),
    );
    for (at, row) in schema.rows.iter().enumerate() {
        let top = y + HEAD + at as f64 * ROW;
        let base = top + 13.0;
        out.push_str(&format!("<g><title>{}</title>\n", escaped(&row.told)));
        if row.is_double {
            out.push_str(&format!(
                "<rect class=\"double\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{ROW}\"/>\n",
                x + 1.0,
                width - 2.0
            ));
        }
        let dot = match row.worst {
            Some(Severity::Critical) => Some("critical"),
            Some(Severity::High) => Some("high"),
            Some(Severity::Info) | None => None,
        };
        if let Some(dot) = dot {
            out.push_str(&format!(
                "<circle class=\"{dot}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.2\"/>\n",
                x + 12.0,
                base - 4.0
            ));
        }
        let room = letters.saturating_sub(super::layout::letters(&row.size) + 1);
        let class = if row.is_leftover { "leftover" } else { "table" };
        text(out, class, x + 22.0, base, &cut(&row.name, room));
        text(out, "num", x + width - 10.0, base, &row.size);
        out.push_str("</g>\n");
    }
}

/// A point at the side of a box, and whether it is the right side.
#[derive(Clone, Copy)]
struct Port {
    x: f64,
    y: f64,
    is_right: bool,
}

/// Where the lines begin and end. Lines at the head of a box are spread over it.
fn ports(picture: &Picture, layout: &Layout) -> Vec<(Port, Port)> {
    let side = |line: &Line| {
        let (from, to) = (
            layout.places[line.from.0].column,
            layout.places[line.to.0].column,
        );
        // Within a column both ends are at the right side.
        (from <= to, to <= from)
    };
    // How many lines each side of a head has, and how many of them were placed.
    let mut used: HashMap<(usize, bool), (usize, usize)> = HashMap::new();
    for line in &picture.lines {
        let (from, to) = side(line);
        for (end, is_right) in [(line.from, from), (line.to, to)] {
            if end.1.is_none() {
                used.entry((end.0, is_right)).or_default().0 += 1;
            }
        }
    }
    let mut port = |(at, row): (usize, Option<usize>), is_right: bool| {
        let place = layout.places[at];
        let y = match row {
            Some(row) => place.y + HEAD + row as f64 * ROW + ROW / 2.0,
            None => {
                let (all, placed) = used.entry((at, is_right)).or_default();
                *placed += 1;
                place.y + place.height * *placed as f64 / (*all as f64 + 1.0)
            }
        };
        Port {
            x: if is_right {
                place.x + layout.width
            } else {
                place.x
            },
            y,
            is_right,
        }
    };
    picture
        .lines
        .iter()
        .map(|line| {
            let (from, to) = side(line);
            (port(line.from, from), port(line.to, to))
        })
        .collect()
}

/// How far a line runs out of a box before it turns.
fn reach(line: &Line, from: Port, to: Port, layout: &Layout) -> f64 {
    let (a, b) = (
        layout.places[line.from.0].column,
        layout.places[line.to.0].column,
    );
    if a == b {
        (24.0 + (from.y - to.y).abs() * 0.18).min(GUTTER * 0.8)
    } else {
        ((from.x - to.x).abs() * 0.45).clamp(50.0, 260.0)
    }
}

fn draw_line(
    out: &mut String,
    line: &Line,
    from: Port,
    to: Port,
    picture: &Picture,
    layout: &Layout,
) {
    let reach = reach(line, from, to, layout);
    let out_of = |port: Port| {
        if port.is_right {
            port.x + reach
        } else {
            port.x - reach
        }
    };
    let class = line.class.as_str();
    let width = if picture.is_detailed || line.keys < 2 {
        String::new()
    } else {
        format!(
            " style=\"stroke-width:{:.1}\"",
            (1.3 + (line.keys as f64).ln() * 0.6).min(6.0)
        )
    };
    out.push_str(&format!(
        "<path class=\"line {class}\"{width} marker-end=\"url(#to-{class})\" d=\"M{:.1} {:.1}C{:.1} {:.1} {:.1} {:.1} {:.1} {:.1}\"><title>{}</title></path>\n",
        from.x,
        from.y,
        out_of(from),
        from.y,
        out_of(to),
        to.y,
        to.x,
        to.y,
        escaped(&line.told)
    ));
}

/// The middle of a line's curve.
fn middle(line: &Line, from: Port, to: Port, layout: &Layout) -> (f64, f64) {
    let reach = reach(line, from, to, layout);
    let out_of = |port: Port| {
        if port.is_right {
            port.x + reach
        } else {
            port.x - reach
        }
    };
    let x = (from.x + to.x + 3.0 * (out_of(from) + out_of(to))) / 8.0;
    (x, f64::midpoint(from.y, to.y))
}

fn legend(out: &mut String, picture: &Picture, audit: &Audit, y: f64, width: f64) {
    let (mut x, mut y) = (MARGIN, y);
    let mut entry = |out: &mut String, sign: String, wide: f64, said: &str| {
        let needed = wide + said.chars().count() as f64 * LETTER;
        if x + needed > width - MARGIN && x > MARGIN {
            x = MARGIN;
            y += 20.0;
        }
        out.push_str(
            &sign
                .replace("{x}", &format!("{x:.1}"))
                .replace("{y}", &format!("{y:.1}")),
        );
        text(out, "small", x + wide, y + 4.0, said);
        x += needed + 3.0 * LETTER;
    };
    for (at, zone) in audit.zones.flow().iter().enumerate() {
        let colour = ZONES[at % ZONES.len()];
        let sign = format!(
            "<g transform=\"translate({{x}} {{y}})\"><rect fill=\"{colour}\" y=\"-6\" width=\"16\" height=\"12\"/></g>\n"
        );
        entry(
            out,
            sign,
            22.0,
            &cut(&one_line(&format!("zone {zone}")), 30),
        );
    }
    let has = |class: Class| picture.lines.iter().any(|line| line.class == class);
    for (class, said) in [
        (
            Class::Within,
            if audit.zones.is_empty() {
                "key"
            } else {
                "key within a zone"
            },
        ),
        (
            Class::Across,
            if audit.zones.is_empty() {
                "key into another schema"
            } else {
                "key into another zone"
            },
        ),
        (Class::Against, "key against the flow"),
        (Class::Undeclared, "reference by name, not declared"),
        (Class::Broken, "broken key"),
    ] {
        if has(class) {
            let class = class.as_str();
            let sign = format!(
                "<g transform=\"translate({{x}} {{y}})\"><path class=\"line {class}\" marker-end=\"url(#to-{class})\" d=\"M0 0h30\"/></g>\n"
            );
            entry(out, sign, 38.0, said);
        }
    }
    let rows = || picture.boxes.iter().flat_map(|schema| &schema.rows);
    for (class, severity, said) in [
        ("critical", Severity::Critical, "critical finding"),
        ("high", Severity::High, "high finding"),
    ] {
        if rows().any(|row| row.worst == Some(severity)) {
            let sign = format!("<circle class=\"{class}\" cx=\"{{x}}\" cy=\"{{y}}\" r=\"3.2\"/>\n");
            entry(out, sign, 10.0, said);
        }
    }
    if rows().any(|row| row.is_double) {
        let sign = "<g transform=\"translate({x} {y})\"><rect class=\"double\" y=\"-6\" width=\"16\" height=\"12\"/></g>\n";
        entry(out, sign.to_owned(), 22.0, "one of several masters");
    }
    if rows().any(|row| row.is_leftover) {
        let sign = "<text class=\"leftover\" x=\"{x}\" y=\"{y}\" dy=\"4\">abc</text>\n";
        entry(out, sign.to_owned(), 26.0, "test or leftover");
    }
}

fn text(out: &mut String, class: &str, x: f64, y: f64, said: &str) {
    out.push_str(&format!(
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>\n",
        escaped(said)
    ));
}

/// Text for XML: nothing in it is markup, and nothing in it is forbidden there.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_markup() {
        assert_eq!(
            escaped("<script>'\"&\u{1}"),
            "&lt;script&gt;&apos;&quot;&amp;\u{fffd}"
        );
    }
}
