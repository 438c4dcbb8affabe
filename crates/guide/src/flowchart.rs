//! How is a flowchart laid out? In rows, in the direction of the arrows.
//!
//! Invariant: an arrow that passes a row has its own place in that row, like a box, and so has a label. So no line runs
//! behind a box or through words.
//!
//! The library that draws the flowchart has a layout too, but some of its arrows end before their box or cross labels.
//! This layout is for the small flowcharts of a chapter. It is the method of Sugiyama, Tagawa and Toda (1981): assign
//! each box to a row, order the rows so that few arrows cross, and move everything close to its neighbours.

use mermaid_rs_renderer::{Direction, Layout, NodeShape};

/// The gap between two rows: room for a bend, and for an arrowhead after it.
const BETWEEN_ROWS: f32 = 40.0;
/// The gap between two places of a row.
const BESIDE: f32 = 28.0;
/// The margin around the chart.
const MARGIN: f32 = 8.0;
/// How far an arrow goes straight before it meets its box.
const HEAD: f32 = 12.0;
/// What the library adds on each side of a label.
const AROUND_LABEL: (f32, f32) = (4.5, 2.2);
/// How often the rows are ordered again: more often than a dozen boxes need.
const ORDERINGS: usize = 32;
/// How often each row settles between its neighbours: enough for a chain of a dozen to become straight.
const SETTLINGS: usize = 200;

type Point = (f32, f32);
/// Swaps x and y, or returns them unchanged.
type Turn = fn(Point) -> Point;

/// Something that takes space in a row: a box, the label of an arrow, or an arrow that passes.
struct Place {
    row: usize,
    /// Its middle, along the row.
    at: f32,
    /// Its size along the row.
    breadth: f32,
    /// Its size in the direction of the arrows.
    depth: f32,
    /// Whether it is only an arrow that passes.
    passes: bool,
}

/// A flowchart whose arrows go down. A chart from left to right is turned when it is read, and turned back when it is
/// written.
struct Chart {
    /// The boxes first, in the order of their names.
    places: Vec<Place>,
    /// The places of each row, in their order.
    rows: Vec<Vec<usize>>,
    /// For each arrow, its places from box to box, one in each row.
    arrows: Vec<Vec<usize>>,
}

/// Moves the boxes, arrows and labels of a flowchart to where they are drawn.
pub fn arrange(layout: &mut Layout, direction: Direction) -> Result<(), String> {
    let turn: Turn = match direction {
        Direction::TopDown => |(x, y)| (x, y),
        Direction::LeftRight => |(x, y)| (y, x),
        _ => return Err("a flowchart of the book goes down (TD) or to the right (LR)".to_owned()),
    };
    if layout.nodes.is_empty() || !layout.subgraphs.is_empty() {
        return Err("a flowchart of the book has boxes, and no subgraphs".to_owned());
    }
    for node in layout.nodes.values_mut().filter(|node| node.shape == NodeShape::Cylinder) {
        // Higher, so that the text does not touch the curves at both ends.
        node.height = node.height.max(node.label.height * 1.5 + 28.0);
    }
    // In the order in which the source names them.
    let mut names: Vec<String> = layout.nodes.keys().cloned().collect();
    let named = |name: &String| {
        layout.edges.iter().flat_map(|edge| [&edge.from, &edge.to]).position(|it| it == name)
    };
    names.sort_by_key(named);
    let mut chart = Chart::of(layout, &names, turn)?;
    chart.order();
    for _ in 0..SETTLINGS {
        for row in 0..chart.rows.len() {
            chart.settle(row);
        }
    }
    for arrow in 0..chart.arrows.len() {
        chart.straighten(arrow);
    }
    chart.write(layout, &names, turn);
    Ok(())
}

impl Chart {
    fn of(layout: &Layout, names: &[String], turn: Turn) -> Result<Self, String> {
        let find = |name: &String| {
            names.iter().position(|it| it == name).ok_or_else(|| format!("{name} is no box"))
        };
        let mut edges = Vec::new();
        for edge in &layout.edges {
            edges.push((find(&edge.from)?, find(&edge.to)?, edge.label.as_ref()));
        }
        // A label stands in a row between the two boxes.
        let lengths =
            edges.iter().map(|(from, to, label)| (*from, *to, 1 + usize::from(label.is_some())));
        let box_rows = rows(names.len(), &lengths.collect::<Vec<_>>())?;
        let place = |row, passes, size| {
            let (breadth, depth) = turn(size);
            Place { row, at: 0.0, breadth, depth, passes }
        };
        let sizes = names.iter().map(|name| (layout.nodes[name].width, layout.nodes[name].height));
        let mut places: Vec<_> =
            box_rows.iter().zip(sizes).map(|(row, size)| place(*row, false, size)).collect();
        let mut arrows = Vec::new();
        for (from, to, label) in edges {
            let first = box_rows[from] + 1;
            let mut arrow = vec![from];
            for row in first..box_rows[to] {
                let label = label.filter(|_| row == first);
                let size = label.map_or((0.0, 0.0), |label| {
                    (label.width + 2.0 * AROUND_LABEL.0, label.height + 2.0 * AROUND_LABEL.1)
                });
                arrow.push(places.len());
                places.push(place(row, label.is_none(), size));
            }
            arrow.push(to);
            arrows.push(arrow);
        }
        let mut rows = vec![Vec::new(); 1 + box_rows.into_iter().max().unwrap_or_default()];
        for (index, place) in places.iter().enumerate() {
            rows[place.row].push(index);
        }
        Ok(Self { places, rows, arrows })
    }

    /// The pairs of places that an arrow joins, from one row to the next.
    fn links(&self) -> impl Iterator<Item = (usize, usize)> {
        self.arrows.iter().flat_map(|arrow| arrow.windows(2).map(|link| (link[0], link[1])))
    }

    /// Orders the places of each row so that few arrows cross.
    fn order(&mut self) {
        let mut best = (self.crossings(), self.rows.clone());
        for ordering in 0..ORDERINGS {
            // Downwards and upwards in turn. Places of equal rank also change their order in turn.
            let (down, reversed) = (ordering % 2 == 0, ordering / 2 % 2 == 1);
            let count = self.rows.len();
            for row in 0..count {
                self.order_row(if down { row } else { count - 1 - row }, down, reversed);
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.rows.clone());
            }
        }
        self.rows = best.1;
    }

    /// Orders a row by the neighbours of its places in the row before, or after.
    fn order_row(&mut self, row: usize, down: bool, reversed: bool) {
        let numbers = self.numbers();
        let middle = |place: usize| {
            let joined = self.links().map(|(from, to)| if down { (to, from) } else { (from, to) });
            let numbers_there: Vec<f32> =
                joined.filter(|link| link.0 == place).map(|link| numbers[link.1]).collect();
            match numbers_there.len() {
                0 => numbers[place],
                count => numbers_there.iter().sum::<f32>() / count as f32,
            }
        };
        let mut ordered = self.rows[row].clone();
        if reversed {
            ordered.reverse();
        }
        ordered.sort_by(|one, other| middle(*one).total_cmp(&middle(*other)));
        self.rows[row] = ordered;
    }

    /// The position of each place in its row.
    fn numbers(&self) -> Vec<f32> {
        let mut numbers = vec![0.0; self.places.len()];
        for row in &self.rows {
            for (number, place) in row.iter().enumerate() {
                numbers[*place] = number as f32;
            }
        }
        numbers
    }

    fn crossings(&self) -> usize {
        let (numbers, links): (_, Vec<_>) = (self.numbers(), self.links().collect());
        let cross = |one: &(usize, usize), other: &(usize, usize)| {
            self.places[one.0].row == self.places[other.0].row
                && (numbers[one.0] - numbers[other.0]) * (numbers[one.1] - numbers[other.1]) < 0.0
        };
        let with_later = |(index, one)| links[index..].iter().filter(|it| cross(one, it)).count();
        links.iter().enumerate().map(with_later).sum()
    }

    /// Moves the places of a row as close to their neighbours in other rows as their order and their sizes allow.
    ///
    /// Least squares in a given order is isotonic regression: places that would overlap move as one group.
    fn settle(&mut self, row: usize) {
        let order = self.rows[row].clone();
        // The position of each place in a packed row, and the groups that move as one: pull, weight, and size.
        let (mut packed, mut groups) = (Vec::new(), Vec::<(f32, f32, usize)>::new());
        let (mut end, mut first) = (0.0, true);
        for place in &order {
            let half = self.places[*place].breadth / 2.0;
            end += if first { half } else { BESIDE + half };
            packed.push(end);
            let (wanted, weight) = self.wanted(*place);
            groups.push(((wanted - end) * weight, weight, 1));
            (end, first) = (end + half, false);
            while let [.., before, last] = groups[..]
                && before.0 / before.1 >= last.0 / last.1
            {
                groups.truncate(groups.len() - 2);
                groups.push((before.0 + last.0, before.1 + last.1, before.2 + last.2));
            }
        }
        let moved = groups.iter().flat_map(|(pull, weight, count)| vec![pull / weight; *count]);
        for ((place, packed), moved) in order.iter().zip(packed).zip(moved) {
            self.places[*place].at = packed + moved;
        }
    }

    /// The best position of a place, which is the mean of its neighbours, and the weight of that wish. A passing arrow
    /// has little weight: it may bend at its end, so that the boxes stay below one another.
    fn wanted(&self, place: usize) -> (f32, f32) {
        let (mut sum, mut weight) = (0.0, 0.0);
        for (from, to) in self.links().filter(|(from, to)| *from == place || *to == place) {
            let pull = if self.places[from].passes || self.places[to].passes { 1.0 } else { 8.0 };
            sum += pull * self.places[if from == place { to } else { from }].at;
            weight += pull;
        }
        if weight > 0.0 { (sum / weight, weight) } else { (self.places[place].at, 1.0) }
    }

    /// Makes an arrow straight where it passes rows, if there is room.
    fn straighten(&mut self, arrow: usize) {
        let passed = &self.arrows[arrow][1..self.arrows[arrow].len() - 1];
        let (mut least, mut most, mut sum) = (f32::NEG_INFINITY, f32::INFINITY, 0.0);
        for place in passed {
            let row = &self.rows[self.places[*place].row];
            let number = row.iter().position(|it| it == place).unwrap_or_default();
            let away =
                |other: &Place| f32::midpoint(other.breadth, self.places[*place].breadth) + BESIDE;
            if let Some(before) = number.checked_sub(1).map(|it| &self.places[row[it]]) {
                least = least.max(before.at + away(before));
            }
            if let Some(after) = row.get(number + 1).map(|it| &self.places[*it]) {
                most = most.min(after.at - away(after));
            }
            sum += self.places[*place].at;
        }
        if least <= most {
            let at = (sum / passed.len() as f32).clamp(least, most);
            for place in passed {
                self.places[*place].at = at;
            }
        }
    }

    /// Writes the positions into the drawing.
    fn write(&self, layout: &mut Layout, names: &[String], turn: Turn) {
        let left = |place: &Place| place.at - place.breadth / 2.0;
        let leftmost = self.places.iter().map(left).fold(f32::INFINITY, f32::min) - MARGIN;
        let right = |place: &Place| place.at + place.breadth / 2.0;
        let rightmost = self.places.iter().map(right).fold(f32::NEG_INFINITY, f32::max) + MARGIN;
        // Where each row begins and ends.
        let (mut rows, mut end) = (Vec::new(), MARGIN);
        for row in &self.rows {
            let depth = row.iter().map(|place| self.places[*place].depth).fold(0.0, f32::max);
            rows.push((end, end + depth));
            end += depth + BETWEEN_ROWS;
        }
        (layout.width, layout.height) = turn((rightmost - leftmost, end - BETWEEN_ROWS + MARGIN));
        let middle = |place: &Place| {
            let (begin, end) = rows[place.row];
            (place.at - leftmost, f32::midpoint(begin, end))
        };
        for (name, place) in names.iter().zip(&self.places) {
            if let Some(node) = layout.nodes.get_mut(name) {
                let (x, y) = middle(place);
                (node.x, node.y) = turn((x - place.breadth / 2.0, y - place.depth / 2.0));
            }
        }
        for (number, arrow) in self.arrows.iter().enumerate() {
            let edge = &mut layout.edges[number];
            // Where the arrow leaves its first box, or meets its last one: `side` is 1 below the box, and -1 above it.
            let border = |place: usize, aside: f32, side: f32| {
                let Place { breadth, depth, .. } = self.places[place];
                let is_diamond = layout.nodes[&names[place]].shape == NodeShape::Diamond;
                let inside = if is_diamond { aside.abs() / breadth * depth } else { 0.0 };
                let (x, y) = middle(&self.places[place]);
                (x + aside, y + side * (depth / 2.0 - inside))
            };
            let [first, .., last] = arrow[..] else { continue };
            let mut here = border(first, self.aside(number, true), 1.0);
            let mut points = vec![here];
            for place in &arrow[1..] {
                let (begin, end) = rows[self.places[*place].row];
                let passed = (middle(&self.places[*place]).0, end);
                let (before, there) = if *place == last {
                    (HEAD, border(last, self.aside(number, false), -1.0))
                } else {
                    (0.0, passed)
                };
                let row_above = rows[self.places[*place].row - 1];
                bend(&mut points, (here.0, row_above.1), (there.0, begin - before));
                points.push(there);
                here = there;
            }
            edge.points = points.into_iter().map(turn).collect();
            edge.label_anchor = edge.label.is_some().then(|| turn(middle(&self.places[arrow[1]])));
        }
    }

    /// How far from the middle of its box an arrow leaves or meets the box. The arrows of a box stand side by side, in
    /// the order of their other ends.
    fn aside(&self, arrow: usize, leaves: bool) -> f32 {
        let end = |arrow: usize| match (&self.arrows[arrow][..], leaves) {
            ([own, next, ..], true) | ([.., next, own], false) => (*own, self.places[*next].at),
            _ => (usize::MAX, 0.0),
        };
        let (own, _) = end(arrow);
        let mut all: Vec<_> = (0..self.arrows.len()).filter(|it| end(*it).0 == own).collect();
        all.sort_by(|one, other| end(*one).1.total_cmp(&end(*other).1));
        let number = all.iter().position(|it| *it == arrow).unwrap_or_default();
        let apart = (0.8 * self.places[own].breadth / all.len() as f32).min(32.0);
        (number as f32 - (all.len() - 1) as f32 / 2.0) * apart
    }
}

/// The row of each box, after all boxes that lead to it. The third number of an edge is its length in rows.
fn rows(count: usize, edges: &[(usize, usize, usize)]) -> Result<Vec<usize>, String> {
    let mut rows = vec![0; count];
    for _ in 0..count {
        let before = rows.clone();
        for (from, to, length) in edges {
            rows[*to] = rows[*to].max(rows[*from] + length);
        }
        if rows == before {
            return Ok(rows);
        }
    }
    Err("its arrows go round in a circle, which is told better in a sequence diagram".to_owned())
}

/// A curve that begins and ends in the direction of the arrows.
fn bend(points: &mut Vec<Point>, from: Point, to: Point) {
    const STEPS: usize = 12;
    for step in 0..=STEPS {
        let part = step as f32 / STEPS as f32;
        let eased = part * part * (3.0 - 2.0 * part);
        points.push((from.0 + (to.0 - from.0) * eased, from.1 + (to.1 - from.1) * part));
    }
}

#[cfg(test)]
mod tests {
    use mermaid_rs_renderer::{LayoutConfig, NodeLayout, Theme, compute_layout, parse_mermaid};

    use super::*;

    fn arranged(source: &str) -> Result<Layout, String> {
        let graph = parse_mermaid(source).unwrap().graph;
        let mut layout = compute_layout(&graph, &Theme::modern(), &LayoutConfig::default());
        arrange(&mut layout, graph.direction).map(|()| layout)
    }

    /// The flowcharts of all chapters, and one with every difficulty.
    fn flowcharts() -> Vec<String> {
        let hard = "flowchart TD\n a{a} -->|first| b[(b)]\n a -->|second| c{c}\n a --> d[d]\n b --> d\n c -->|a long label that needs two lines| d\n c --> e[e]\n a -.-> e\n";
        let chapters = crate::answers().into_iter().flat_map(|answer| {
            let text = std::fs::read_to_string(format!("{}/chapter.md", answer.folder)).unwrap();
            let blocks = text.split("```mermaid\n").skip(1).map(str::to_owned);
            blocks.collect::<Vec<_>>()
        });
        let source = |block: String| block.split("```").next().unwrap_or_default().to_owned();
        let without_title = |block: String| {
            let lines = block.lines().filter(|line| !line.contains("accTitle"));
            lines.collect::<Vec<_>>().join("\n")
        };
        let charts = chapters.map(source).filter(|block| block.starts_with("flowchart"));
        let charts: Vec<_> = charts.map(without_title).chain([hard.to_owned()]).collect();
        assert!(charts.len() >= 10, "{charts:?}");
        charts
    }

    /// Points along a line, a few pixels apart.
    fn along(points: &[Point]) -> Vec<Point> {
        let between = |ends: &[Point]| {
            let (from, to) = (ends[0], ends[1]);
            (0_u8..=50).map(move |step| {
                let part = f32::from(step) / 50.0;
                (from.0 + (to.0 - from.0) * part, from.1 + (to.1 - from.1) * part)
            })
        };
        points.windows(2).flat_map(between).collect()
    }

    /// A rectangle: its left upper corner, and its right lower one.
    type Area = (Point, Point);

    fn of(node: &NodeLayout) -> Area {
        ((node.x, node.y), (node.x + node.width, node.y + node.height))
    }

    fn holds(((left, top), (right, bottom)): Area, (x, y): Point) -> bool {
        left + 0.5 < x && x < right - 0.5 && top + 0.5 < y && y < bottom - 0.5
    }

    fn overlap(one: Area, other: Area) -> bool {
        one.0.0 < other.1.0 && other.0.0 < one.1.0 && one.0.1 < other.1.1 && other.0.1 < one.1.1
    }

    /// Whether a point is on the edge of a box.
    fn touches(node: &NodeLayout, (x, y): Point) -> bool {
        let ((left, top), (right, bottom)) = of(node);
        let from_middle = (
            (x - f32::midpoint(left, right)).abs() / (node.width / 2.0),
            (y - f32::midpoint(top, bottom)).abs() / (node.height / 2.0),
        );
        let reach = match node.shape {
            NodeShape::Diamond => from_middle.0 + from_middle.1,
            _ => from_middle.0.max(from_middle.1),
        };
        (reach - 1.0).abs() < 0.01
    }

    #[test]
    fn each_arrow_begins_and_ends_at_its_boxes_and_no_line_runs_behind_a_box_or_through_words() {
        for source in flowcharts() {
            let layout = arranged(&source).unwrap();
            let label = |edge: &mermaid_rs_renderer::EdgeLayout| {
                let (label, (x, y)) = (edge.label.as_ref()?, edge.label_anchor?);
                let (width, height) = (label.width / 2.0, label.height / 2.0);
                Some(((x - width, y - height), (x + width, y + height)))
            };
            let boxes: Vec<Area> = layout.nodes.values().map(of).collect();
            let labels: Vec<Option<Area>> = layout.edges.iter().map(label).collect();
            for (number, edge) in layout.edges.iter().enumerate() {
                let what = format!("{} --> {} of {source}", edge.from, edge.to);
                assert!(touches(&layout.nodes[&edge.from], edge.points[0]), "{what}");
                assert!(touches(&layout.nodes[&edge.to], *edge.points.last().unwrap()), "{what}");
                assert_eq!(edge.label.is_some(), labels[number].is_some(), "{what}");
                let own = [&edge.from, &edge.to].map(|name| of(&layout.nodes[name]));
                for point in along(&edge.points) {
                    // An arrow leaves a diamond where the rectangle around it has a corner.
                    let behind = boxes.iter().any(|it| holds(*it, point) && !own.contains(it));
                    assert!(!behind, "{what}: {point:?}");
                    let others = labels.iter().enumerate().filter(|(other, _)| *other != number);
                    let through = others.flat_map(|it| it.1).any(|it| holds(*it, point));
                    assert!(!through, "{what}: {point:?}");
                    let whole = ((0.0, 0.0), (layout.width, layout.height));
                    assert!(holds(whole, point), "{what}: {point:?}");
                }
            }
            let all: Vec<Area> = boxes.into_iter().chain(labels.into_iter().flatten()).collect();
            for (number, one) in all.iter().enumerate() {
                assert!(!all[..number].iter().any(|other| overlap(*one, *other)), "{source}");
            }
        }
    }

    #[test]
    fn no_two_arrows_cross_where_they_need_not() {
        let layout =
            arranged("flowchart TD\n a --> x\n a --> y\n b --> x\n c --> z\n b --> z\n y --> w\n");
        let layout = layout.unwrap();
        let ends = layout.edges.iter().map(|edge| (edge.points[0], *edge.points.last().unwrap()));
        let ends: Vec<_> = ends.collect();
        for (one, other) in ends.iter().flat_map(|one| ends.iter().map(move |other| (one, other))) {
            let same_row = (one.0.1 - other.0.1).abs() < 1.0;
            let cross = (one.0.0 - other.0.0) * (one.1.0 - other.1.0) < 0.0;
            assert!(!(same_row && cross), "{one:?} {other:?}");
        }
    }

    #[test]
    fn what_cannot_be_drawn_in_rows_is_said() {
        for (source, problem) in [
            ("flowchart TD\n a --> b\n b --> a\n", "circle"),
            ("flowchart TD\n a --> a\n", "circle"),
            ("flowchart BT\n a --> b\n", "TD"),
            ("flowchart TD\n subgraph s\n a --> b\n end\n", "subgraph"),
        ] {
            let said = arranged(source).err().unwrap_or_default();
            assert!(said.contains(problem), "{source}: {said}");
        }
    }
}
