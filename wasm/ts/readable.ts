/** Values that can be read at once and watched: the shape that frameworks' stores expect. */

/**
 * A value that changes. `getSnapshot` gives the same object until it changes, so that the pair fits
 * `useSyncExternalStore` and the store contracts of other frameworks.
 */
export interface Readable<T> {
  /** The value now. */
  getSnapshot(): T;
  /** Calls the listener at once and after every change; returns its own undo. */
  subscribe(listener: (value: T) => void): () => void;
}

/**
 * Calls listeners after all states of a turn are up to date, each with the newest value: a listener that acts starts
 * no second round within the first. What a listener throws is reported like any uncaught error and stops nobody else.
 * @internal
 */
export class Turn {
  readonly #changed = new Set<() => void>();
  #running = false;

  /** Has `announce` called at the end of the turn, once. */
  add(announce: () => void): void {
    this.#changed.add(announce);
  }

  /** Ends the turn. */
  end(): void {
    if (this.#running) return;
    this.#running = true;
    try {
      for (const announce of this.#changed) {
        this.#changed.delete(announce);
        announce();
      }
    } finally {
      this.#running = false;
    }
  }
}

/** The listeners of one value. @internal */
export class Listeners<T> {
  readonly #all = new Set<{ readonly call: (value: T) => void }>();

  get size(): number {
    return this.#all.size;
  }

  add(call: (value: T) => void): () => void {
    const listener = { call };
    this.#all.add(listener);
    return () => {
      this.#all.delete(listener);
    };
  }

  announce(value: T): void {
    for (const { call } of [...this.#all]) guarded(() => call(value));
  }
}

/** A readable that its owner sets. @internal */
export class Cell<T> implements Readable<T> {
  readonly #listeners = new Listeners<T>();
  readonly #announce = () => this.#listeners.announce(this.#value);
  #value: T;

  constructor(
    private readonly turn: Turn,
    value: T,
  ) {
    this.#value = value;
  }

  set(value: T): void {
    if (value === this.#value) return;
    this.#value = value;
    this.turn.add(this.#announce);
  }

  getSnapshot(): T {
    return this.#value;
  }

  subscribe(listener: (value: T) => void): () => void {
    const stop = this.#listeners.add(listener);
    guarded(() => listener(this.#value));
    return stop;
  }
}

/** Runs a listener of the app; what it throws surfaces as an uncaught error of its own task. @internal */
export function guarded(call: () => void): void {
  try {
    call();
  } catch (error) {
    setTimeout(() => {
      throw error;
    });
  }
}
