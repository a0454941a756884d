// Photos in rows of equal height, as many as there are: only what is on screen, and a little around it, is in the document.
// Rows are laid out once for the whole list, three typed arrays for 100,000 photos, so a jump to any place is a look-up.

const GAP = 6;

export class Grid {
  // fill(cell, index) gives a cell its content, clear(cell) takes it, settled(first, last) hears what stays on screen.
  constructor(scroller, sheet, { make, fill, clear, settled }) {
    Object.assign(this, { scroller, sheet, make, fill, clear, settled });
    this.count = 0;
    this.shapes = [];
    this.height = 200;
    this.cursor = 0;
    this.cells = new Map();
    this.free = [];
    this.rows = 0;
    this.fast = false;
    this.lastTop = 0;
    this.lastTime = 0;
    scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    new ResizeObserver(() => this.resized()).observe(scroller);
  }

  // Shows `count` photos of these shapes (width over height in hundredths). With `changed`, which says of an index whether another
  // photo is there now, one stays where one is.
  show(count, shapes, changed) {
    this.count = count;
    this.shapes = shapes;
    if (changed) {
      for (const [index, cell] of this.cells) {
        if (index >= count || !changed(index)) continue;
        this.clear(cell);
        cell.filled = false;
      }
    } else {
      for (const index of [...this.cells.keys()]) this.release(index);
      this.cursor = 0;
      this.scroller.scrollTop = 0;
    }
    this.cursor = Math.max(0, Math.min(this.cursor, count - 1));
    this.layOut();
  }

  resize(height) {
    this.height = height;
    this.keepPlace();
  }

  resized() {
    if (this.sheet.clientWidth !== this.width) this.keepPlace();
    else this.draw();
  }

  keepPlace() {
    const row = this.rows ? this.rowAt(this.scroller.scrollTop) : 0;
    const first = this.rows ? this.starts[row] : 0;
    this.layOut();
    if (first) this.scroller.scrollTop = this.tops[this.rowOf(first)];
    this.draw();
  }

  layOut() {
    const width = (this.width = this.sheet.clientWidth);
    const { count, shapes } = this;
    if (!this.starts || this.starts.length < count + 1) {
      this.starts = new Uint32Array(count + 1);
      this.tops = new Float64Array(count + 1);
      this.heights = new Float32Array(count + 1);
    }
    let row = 0, start = 0, sum = 0, top = 0;
    const close = (end, height) => {
      this.starts[row] = start;
      this.tops[row] = top;
      this.heights[row] = height;
      top += height + GAP;
      row += 1;
      start = end;
      sum = 0;
    };
    for (let index = 0; index < count; index++) {
      sum += shape(shapes[index]);
      const gaps = (index - start) * GAP;
      if (sum * this.height + gaps >= width) close(index + 1, Math.max(40, (width - gaps) / sum));
    }
    if (start < count) close(count, this.height);
    this.rows = row;
    this.starts[row] = count;
    this.tops[row] = top;
    this.sheet.style.height = `${Math.max(0, top - GAP)}px`;
    for (const index of [...this.cells.keys()]) if (index >= count) this.release(index);
    this.version = (this.version || 0) + 1;
    this.draw();
  }

  // The row at a height, the row of a photo: binary searches over what was laid out.
  rowAt(y) {
    return search(this.tops, this.rows, y);
  }

  rowOf(index) {
    return search(this.starts, this.rows, index);
  }

  scrolled() {
    const now = performance.now();
    const speed = Math.abs(this.scroller.scrollTop - this.lastTop) / Math.max(1, now - this.lastTime);
    this.lastTop = this.scroller.scrollTop;
    this.lastTime = now;
    // Pictures that nobody can see at this speed are not asked for.
    this.fast = speed > 6;
    if (!this.frame) this.frame = requestAnimationFrame(() => ((this.frame = 0), this.draw()));
  }

  draw() {
    clearTimeout(this.settling);
    const { scrollTop, clientHeight } = this.scroller;
    const around = this.fast ? 0 : clientHeight * 0.6;
    const from = this.rows ? this.rowAt(Math.max(0, scrollTop - around)) : 0;
    let to = from;
    while (to < this.rows && this.tops[to] < scrollTop + clientHeight + around) to += 1;
    const first = this.rows ? this.starts[from] : 0;
    const last = this.rows ? this.starts[to] : 0;
    const focused = document.activeElement?.closest?.(".cell");
    for (const [index, cell] of this.cells) {
      if ((index < first || index >= last) && cell !== focused) this.release(index);
    }
    for (let row = from; row < to; row++) {
      const height = this.heights[row];
      let x = 0;
      for (let index = this.starts[row]; index < this.starts[row + 1]; index++) {
        const width = row === this.rows - 1 && height === this.height
          ? Math.min(this.width, shape(this.shapes[index]) * height)
          : shape(this.shapes[index]) * height;
        this.place(index, x, this.tops[row], width, height);
        x += width + GAP;
      }
    }
    this.settling = setTimeout(() => {
      this.fast = false;
      for (const [index, cell] of this.cells) if (!cell.filled) this.fillCell(cell, index);
      this.settled(first, last);
    }, 90);
  }

  place(index, x, y, width, height) {
    let cell = this.cells.get(index);
    if (!cell) {
      cell = this.free.pop() || this.make();
      cell.filled = false;
      cell.index = index;
      this.cells.set(index, cell);
      cell.setAttribute("aria-posinset", index + 1);
      cell.firstElementChild.tabIndex = index === this.cursor ? 0 : -1;
      if (!cell.isConnected) this.sheet.append(cell);
      cell.hidden = false;
    }
    // What is where it belongs is not touched: a scroll of one row moves one row of cells.
    if (cell.version !== this.version || cell.at !== index) {
      cell.version = this.version;
      cell.at = index;
      cell.setAttribute("aria-setsize", this.count);
      cell.style.transform = `translate(${x.toFixed(1)}px, ${y}px)`;
      cell.style.width = `${width.toFixed(1)}px`;
      cell.style.height = `${height}px`;
    }
    if (!cell.filled && !this.fast) this.fillCell(cell, index);
  }

  fillCell(cell, index) {
    cell.filled = true;
    this.fill(cell, index);
  }

  release(index) {
    const cell = this.cells.get(index);
    this.cells.delete(index);
    this.clear(cell);
    cell.hidden = true;
    cell.removeAttribute("aria-posinset");
    this.free.push(cell);
  }

  // Moves the cursor to a photo and brings it on screen.
  focus(index) {
    if (!this.count) return;
    const old = this.cells.get(this.cursor);
    if (old) old.firstElementChild.tabIndex = -1;
    this.cursor = Math.max(0, Math.min(this.count - 1, index));
    const row = this.rowOf(this.cursor);
    const { scrollTop, clientHeight } = this.scroller;
    const top = this.tops[row], bottom = top + this.heights[row] + 20;
    if (top < scrollTop) this.scroller.scrollTop = top;
    else if (bottom > scrollTop + clientHeight) this.scroller.scrollTop = bottom - clientHeight;
    this.fast = false;
    this.draw();
    const cell = this.cells.get(this.cursor);
    cell.firstElementChild.tabIndex = 0;
    cell.firstElementChild.focus({ preventScroll: true });
  }

  // Where a key leads from the cursor; undefined for other keys.
  target(key) {
    const row = this.rowOf(this.cursor);
    switch (key) {
      case "ArrowLeft": return this.cursor - 1;
      case "ArrowRight": return this.cursor + 1;
      case "ArrowUp": return row === 0 ? -1 : this.nearest(row - 1);
      case "ArrowDown": return this.nearest(Math.min(this.rows - 1, row + 1));
      case "PageUp": return this.nearest(this.rowAt(Math.max(0, this.tops[row] - this.scroller.clientHeight)));
      case "PageDown": return this.nearest(this.rowAt(this.tops[row] + this.scroller.clientHeight));
      case "Home": return 0;
      case "End": return this.count - 1;
      default: return undefined;
    }
  }

  // The photo of a row that lies above or below the cursor.
  nearest(row) {
    const own = this.rowOf(this.cursor);
    let middle = 0;
    for (let index = this.starts[own]; index < this.cursor; index++) middle += shape(this.shapes[index]) * this.heights[own] + GAP;
    middle += (shape(this.shapes[this.cursor]) * this.heights[own]) / 2;
    let x = 0;
    for (let index = this.starts[row]; index < this.starts[row + 1]; index++) {
      x += shape(this.shapes[index]) * this.heights[row] + GAP;
      if (x >= middle) return index;
    }
    return this.starts[row + 1] - 1;
  }
}

// Width over height; extremes are cropped, and what is not known is taken for a photo.
function shape(hundredths) {
  return hundredths ? Math.min(3, Math.max(0.5, hundredths / 100)) : 1.33;
}

function search(sorted, count, value) {
  let low = 0, high = count - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (sorted[middle] <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}
