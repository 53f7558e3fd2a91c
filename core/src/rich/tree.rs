//! The order of the chunks of a sequence: a B-tree that knows its nodes' parents.
//!
//! It answers which chunk covers a position, at which position a chunk begins, which chunk stands beside one, and which
//! is the next with an element as small as a given one, each in a number of steps that grows with the logarithm of the
//! chunks. It knows chunks by number only; of their elements it keeps the width and the least counter.

/// Most children of a branch.
const CHILDREN_MAX: usize = 32;

#[derive(Debug, Clone)]
pub(super) struct Tree {
    branches: Vec<Branch>,
    root: u32,
    /// Of each chunk: the branch that holds it.
    parents: Vec<u32>,
    width: usize,
}

#[derive(Debug, Clone)]
struct Branch {
    parent: Option<u32>,
    /// 0 if the children are chunks.
    height: u32,
    children: Vec<Child>,
}

/// A branch or a chunk, with the width of all under it, and a counter that no run under it starts below.
#[derive(Debug, Clone, Copy)]
struct Child {
    number: u32,
    width: u32,
    least: u32,
}

impl Tree {
    /// One chunk, number 0, without width.
    pub(super) fn new() -> Self {
        let children = vec![Child { number: 0, width: 0, least: u32::MAX }];
        Self { branches: vec![Branch { parent: None, height: 0, children }], root: 0, parents: vec![0], width: 0 }
    }

    /// The width of everything.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The chunk that covers a position, and where it begins.
    pub(super) fn chunk_at(&self, at: usize) -> Option<(u32, usize)> {
        if at >= self.width {
            return None;
        }
        let mut begin = 0;
        let mut branch = &self.branches[self.root as usize];
        loop {
            let child = branch.children.iter().find(|child| {
                let found = at < begin + child.width as usize;
                begin += if found { 0 } else { child.width as usize };
                found
            })?;
            if branch.height == 0 {
                return Some((child.number, begin));
            }
            branch = &self.branches[child.number as usize];
        }
    }

    /// Where a chunk begins.
    pub(super) fn begin_of(&self, chunk: u32) -> usize {
        let mut begin = 0;
        let (mut number, mut parent) = (chunk, Some(self.parents[chunk as usize]));
        while let Some(branch) = parent {
            let before = self.branches[branch as usize].children.iter().take_while(|child| child.number != number);
            begin += before.map(|child| child.width as usize).sum::<usize>();
            (number, parent) = (branch, self.branches[branch as usize].parent);
        }
        begin
    }

    /// The chunk behind one.
    pub(super) fn next(&self, chunk: u32) -> Option<u32> {
        self.beside(chunk, |place| Some(place + 1), |children| children.first())
    }

    /// The chunk before one.
    pub(super) fn previous(&self, chunk: u32) -> Option<u32> {
        self.beside(chunk, |place| place.checked_sub(1), |children| children.last())
    }

    /// The first chunk behind `chunk` that may have a run that starts at `counter` or below.
    pub(super) fn next_with(&self, chunk: u32, counter: u32) -> Option<u32> {
        let small = |child: &&Child| child.least <= counter;
        let (mut number, mut parent) = (chunk, Some(self.parents[chunk as usize]));
        while let Some(above) = parent {
            let mut branch = &self.branches[above as usize];
            let place = branch.children.iter().position(|child| child.number == number)?;
            let mut found = branch.children[place + 1..].iter().find(small);
            while let Some(child) = found {
                if branch.height == 0 {
                    return Some(child.number);
                }
                branch = &self.branches[child.number as usize];
                found = branch.children.iter().find(small);
            }
            (number, parent) = (above, self.branches[above as usize].parent);
        }
        None
    }

    /// The last chunk.
    pub(super) fn last(&self) -> u32 {
        self.edge(self.root, |children| children.last()).unwrap_or(0)
    }

    /// The chunks in order.
    pub(super) fn chunks(&self) -> impl Iterator<Item = u32> {
        let first = self.edge(self.root, |children| children.first());
        std::iter::successors(first, |chunk| self.next(*chunk))
    }

    /// Adds to the width of a chunk.
    pub(super) fn widen(&mut self, chunk: u32, more: i64) {
        self.width = self.width.saturating_add_signed(more as isize);
        self.each_above(chunk, |child| child.width = child.width.saturating_add_signed(more as i32));
    }

    /// Notes that a run that starts at `counter` is in a chunk.
    pub(super) fn lower(&mut self, chunk: u32, counter: u32) {
        self.each_above(chunk, |child| child.least = child.least.min(counter));
    }

    /// Puts a new chunk behind `chunk`, with a part of its width and the least counter of what moves; returns its number.
    pub(super) fn split(&mut self, chunk: u32, width: u32, least: u32) -> u32 {
        let new = self.parents.len() as u32;
        let parent = self.parents[chunk as usize];
        self.parents.push(parent);
        self.insert_behind(parent, chunk, Child { number: new, width, least });
        new
    }

    fn each_above(&mut self, chunk: u32, change: impl Fn(&mut Child)) {
        let (mut number, mut parent) = (chunk, Some(self.parents[chunk as usize]));
        while let Some(above) = parent {
            let branch = &mut self.branches[above as usize];
            branch.children.iter_mut().filter(|child| child.number == number).for_each(&change);
            (number, parent) = (above, branch.parent);
        }
    }

    fn insert_behind(&mut self, branch: u32, number: u32, new: Child) {
        let children = &mut self.branches[branch as usize].children;
        let place = children.iter().take_while(|child| child.number != number).count();
        if let Some(child) = children.get_mut(place) {
            child.width -= new.width;
        }
        children.insert(place + 1, new);
        if children.len() > CHILDREN_MAX {
            self.halve(branch);
        }
    }

    fn halve(&mut self, branch: u32) {
        let new = self.branches.len() as u32;
        let Branch { parent, height, children } = &mut self.branches[branch as usize];
        let (parent, height) = (*parent, *height);
        let moved = children.split_off(CHILDREN_MAX / 2);
        let (kept, behind) = (total(branch, children), total(new, &moved));
        for child in &moved {
            match height {
                0 => self.parents[child.number as usize] = new,
                _ => self.branches[child.number as usize].parent = Some(new),
            }
        }
        self.branches.push(Branch { parent, height, children: moved });
        match parent {
            Some(parent) => self.insert_behind(parent, branch, behind),
            None => {
                self.root = new + 1;
                self.branches[branch as usize].parent = Some(self.root);
                self.branches[new as usize].parent = Some(self.root);
                self.branches.push(Branch { parent: None, height: height + 1, children: vec![kept, behind] });
            }
        }
    }

    fn beside(
        &self,
        chunk: u32,
        step: impl Fn(usize) -> Option<usize>,
        end: impl Fn(&[Child]) -> Option<&Child>,
    ) -> Option<u32> {
        let (mut number, mut parent) = (chunk, Some(self.parents[chunk as usize]));
        while let Some(branch) = parent {
            let Branch { parent: above, height, children } = &self.branches[branch as usize];
            let place = children.iter().position(|child| child.number == number)?;
            if let Some(child) = step(place).and_then(|place| children.get(place)) {
                return if *height == 0 { Some(child.number) } else { self.edge(child.number, end) };
            }
            (number, parent) = (branch, *above);
        }
        None
    }

    /// The first or last chunk under a branch.
    fn edge(&self, mut branch: u32, end: impl Fn(&[Child]) -> Option<&Child>) -> Option<u32> {
        loop {
            let Branch { height, children, .. } = &self.branches[branch as usize];
            let child = end(children)?;
            if *height == 0 {
                return Some(child.number);
            }
            branch = child.number;
        }
    }
}

/// A branch as a child.
fn total(number: u32, children: &[Child]) -> Child {
    let width = children.iter().map(|child| child.width).sum();
    let least = children.iter().map(|child| child.least).min().unwrap_or(u32::MAX);
    Child { number, width, least }
}
