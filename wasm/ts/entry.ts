/** Own entries as the app sees them: what the user did, and what became of it. */

import type { WireEntry } from './boundary.js';
import type { ArgsOf, LogDefinition } from './schema.js';
import { freeze } from './value.js';
import type { WriteId } from './write.js';

/** `pending`: not durable yet; `stored`: durable on this device; `accepted`: in the server's log; `refused`: a dead letter. */
export type EntryStatus = 'pending' | 'stored' | 'accepted' | 'refused';

/** An action as recorded by this client. */
export interface EntryOf<Action extends string, Args> {
  readonly writeId: WriteId;
  /** (actor, seq) as `actor-seq`; `undefined` while pending. */
  readonly entryId: string | undefined;
  readonly action: Action;
  /** `undefined` if the action has none, or does not record them. */
  readonly args: Args | undefined;
  readonly status: EntryStatus;
  /** When the action was called, in ms since 1970. */
  readonly time: number;
  /** Set once accepted, unless it is known only through a snapshot. */
  readonly offset: number | undefined;
  /** Set once accepted, in ms since 1970, unless it is known only through a snapshot. */
  readonly acceptedAt: number | undefined;
  /** The user who acted, as far as known. */
  readonly author: string | undefined;
  /** Of an accepted entry: see `Acceptance`. */
  readonly outcome: 'applied' | 'record-gone' | 'expired' | undefined;
  /** Of a refused entry: the server's code, as in `DriftlogError`. */
  readonly code: string | undefined;
  /** Of a refused entry: the server's words, for people. */
  readonly reason: string | undefined;
  /** The entry id of the dead letter that it re-issues. */
  readonly replaces: string | undefined;
  /** A dead letter that was redriven: its replacement waits for a verdict. */
  readonly redriven: boolean;
}

/** Any own entry of a log; `action` tells which, and with it the type of `args`. */
export type Entry<D extends LogDefinition> = {
  [Name in keyof D['actions'] & string]: EntryOf<Name, ArgsOf<D['actions'][Name]>>;
}[keyof D['actions'] & string];

/** An entry that the server refused, kept whole. */
export type DeadLetter<D extends LogDefinition> = Entry<D> & {
  readonly status: 'refused';
  readonly code: string;
  readonly entryId: string;
};

/** Which entries to list; what is left out does not filter. */
export interface EntryFilter<D extends LogDefinition, Name extends keyof D['actions'] & string> {
  readonly action?: Name;
  readonly status?: EntryStatus | readonly EntryStatus[];
}

/** @internal */
export function entryOf<D extends LogDefinition>(wire: WireEntry): Entry<D> {
  return Object.freeze({
    writeId: wire.writeId,
    entryId: wire.entryId ?? undefined,
    action: wire.action,
    args: freeze(wire.args ?? undefined),
    status: wire.status,
    time: wire.time,
    offset: wire.offset ?? undefined,
    acceptedAt: wire.acceptedAt ?? undefined,
    author: wire.author ?? undefined,
    outcome: (wire.outcome as EntryOf<string, unknown>['outcome']) ?? undefined,
    code: wire.code ?? undefined,
    reason: wire.reason ?? undefined,
    replaces: wire.replaces ?? undefined,
    redriven: wire.redriven ?? false,
  }) as unknown as Entry<D>;
}
