/**
 * Every error that this package throws or rejects with, told apart by `code`, never by its text.
 *
 * Invariant: the union of codes is closed. A server's own policy, or a newer server, may refuse with a number that
 * this version has no word for: it arrives as `refused`, with the server's words in `details.reason` and its number in `details.number`.
 */

/** What each code carries. The key is the code, the value is `error.details`. */
export interface ErrorDetails {
  // The call: fix the line that made it.

  /** A field, collection or action name that is reserved (`id`, `$…`) or not a name at all. Thrown by `defineLog`. */
  'bad-name': { name: string; where: string };
  /** A log parameter is missing, empty or not a string or a number. Thrown by `client.open`. */
  'bad-param': { pattern: string; param: string };
  /**
   * A value has no canonical form: `undefined` in a list, NaN, an infinity, −0, an integer beyond 2^53−1, a lone
   * surrogate, a function, a class instance, nesting that is too deep. `path` leads to it, as in `args.todo.due`; it
   * is `action` if the action as a whole is not an entry: too large, or with too many ops.
   */
  'bad-value': { path: string; problem: string };
  /** A position or a length outside of the text, or between the two halves of one character. UTF-16 code units. */
  'bad-position': { field: string; at: number; length: number };
  /** `get` of a record that the view does not show. Use `find` where it may be gone. */
  'no-such-record': { collection: string; id: string };
  /** A mutator returned a promise. What it did is not recorded: mutators are synchronous. */
  'mutator-async': { action: string };
  /** A draft was used after its mutator had returned, or an action was called from within a mutator. */
  'draft-closed': { action: string };
  /** A query names a collection or a field that its log does not declare, or a comparison that the field has not. */
  'bad-query': { problem: string };
  /** The client or the log was closed before this call. */
  closed: { what: string };
  /** A redrive or discard of what is no dead letter: it was discarded, or a replacement of it was accepted. */
  'no-such-dead-letter': { reason: string };
  /** A redrive of a dead letter whose replacement waits for its verdict. */
  'already-redriven': { reason: string };
  /** A dead letter that changes a text and did not record its arguments: redrive it with arguments. */
  'needs-arguments': { reason: string };
  /** One client has the log open under another definition. */
  'already-open': { log: string };

  // This device: retry when there is space, or tell the user.

  /** The browser's quota is used up; the action was not recorded and has left the view. Free space, call again. */
  'storage-full': { reason: string };
  /** The local database failed or was lost; the action was not recorded and has left the view. */
  'storage-failed': { reason: string };
  /** An entry on which this one builds could not be recorded, so this one was not either. */
  'needs-failed': { reason: string };
  /**
   * The log keeps no more work until the server has answered some of it: nothing was recorded, and what was before
   * stays. Wait until `log.pressure` is less, then call again; `reason` has the numbers.
   */
  'backlog-full': { reason: string };
  /** The package's wasm could not be loaded. */
  'engine-missing': { reason: string };
  /** The engine refused the call or did not come back from it; this is a bug of this package. Nothing was recorded. */
  'engine-failed': { reason: string };
  /**
   * The engine is being begun again after a fault of its own: the call did nothing. Call again when `log.status` is no
   * longer `degraded`, usually after some tens of milliseconds.
   */
  restarting: { reason: string };

  // The server: a durable verdict. The entry is kept whole in `log.deadLetters`.

  /**
   * The server refused the entry with a number that this package has no word for: one of the server's own policy (from
   * 1000 on), or of a newer version. It is in `details.number`.
   */
  refused: Refusal;
  /** The entry breaks a rule of the format or a limit of the server. */
  malformed: Refusal;
  /** The entry has an op of a kind that the server does not know: update the server. */
  'unknown-op': Refusal;
  /** The entry builds on an entry that was refused. */
  'depends-on': Refusal;
  /** A policy of the server does not let this user do this. */
  'not-allowed': Refusal;
  /** What the entry says breaks a rule of the app that the server holds. */
  'not-valid': Refusal;
  /** The share of this user or of this log is used up: act again when there is room. */
  'quota-exceeded': Refusal;
  /** The token gives no right to append to this log. */
  forbidden: Refusal;
  /** The entry re-issues one that was accepted or replaced already: nothing is lost. */
  'already-replaced': Refusal;
  /** The change of a text does not pass the server's checks. */
  'rich-change': Refusal;
  /** The change of a text builds on changes that the log does not have. */
  'rich-dependency': Refusal;
  /** This device had given the entry up, for instance because its bytes were damaged. */
  void: Refusal;
  /** The entry's bytes were damaged on this device before the server had them; what is left is a dead letter. */
  damaged: Refusal;
  /** The engine of this device does not come back from the entry: after three attempts it is a dead letter. */
  trapped: Refusal;
  /** An entry of the same number and other content was there before: a cloned or restored profile. */
  'actor-forked': Refusal;
  /** The server no longer knows this client, and cannot tell whether it had the entry: act again if it is not there. */
  'outcome-unknown': Refusal;
  /** The server had the entry and has lost it: it was put back to a backup. Redrive it, or export it. */
  'lost-by-server': Refusal;
  'old-root': Refusal;
}

/** What a server's verdict other than plain acceptance carries. */
export interface Refusal {
  /** The entry, for `log.entry`. */
  writeId: string;
  /** (actor, seq) as `actor-seq`; absent if the entry was never recorded. */
  entryId: string | undefined;
  /** The server's words. For people and logs: never compare them. */
  reason: string;
  /** The number of the code on the wire (docs/protocol.md, "Codes"); 0 if it has none. */
  number: number;
}

/** The closed union of codes. A `switch` over it can be exhaustive. */
export type ErrorCode = keyof ErrorDetails;

/** One error for one code; `DriftlogError` is the union of them all. */
export interface DriftlogErrorOf<Code extends ErrorCode> extends Error {
  readonly name: 'DriftlogError';
  readonly code: Code;
  readonly details: ErrorDetails[Code];
}

/**
 * Any error of this package. Narrow it by its code:
 *
 * ```ts
 * try { log.do.toggle({ id }) } catch (error) {
 *   if (error instanceof DriftlogError && error.code === 'no-such-record') console.log(error.details.id)
 * }
 * ```
 */
export type DriftlogError = { [Code in ErrorCode]: DriftlogErrorOf<Code> }[ErrorCode];

class TypedError<Code extends ErrorCode> extends Error {
  override readonly name = 'DriftlogError';
  constructor(
    readonly code: Code,
    readonly details: ErrorDetails[Code],
    text: string,
  ) {
    super(text);
  }
}

/** The class behind `instanceof DriftlogError`. Only this package makes instances. */
export const DriftlogError = TypedError as unknown as { readonly prototype: DriftlogError } & (abstract new (
  ...never: never[]
) => DriftlogError);

/** @internal */
export function fail<Code extends ErrorCode>(
  code: Code,
  details: ErrorDetails[Code],
  text: string,
): DriftlogErrorOf<Code> {
  return new TypedError(code, details, text);
}

/** The codes of refusals; those of single entries are numbered in core/src/protocol/code.rs. @internal */
export const REFUSALS: ReadonlySet<string> = new Set<ErrorCode>([
  'refused',
  'malformed',
  'unknown-op',
  'depends-on',
  'not-allowed',
  'not-valid',
  'quota-exceeded',
  'forbidden',
  'already-replaced',
  'rich-change',
  'rich-dependency',
  'void',
  'damaged',
  'trapped',
  'actor-forked',
  'outcome-unknown',
  'lost-by-server',
  'old-root',
]);

/** The error that a verdict rejects `accepted` with. @internal */
export function refusal(code: string, details: Refusal): DriftlogError {
  const known = (REFUSALS.has(code) ? code : 'refused') as 'refused';
  const reason = known === code ? details.reason : `${code}: ${details.reason}`;
  return fail(
    known,
    { ...details, reason },
    `entry ${details.writeId} was refused (${code}): ${details.reason}`,
  ) as DriftlogError;
}

/** The error of a failed append, or of an engine call. @internal */
export function engineError(code: string, reason: string): DriftlogError {
  const text = `${code}: ${reason}`;
  switch (code) {
    case 'storage-full':
    case 'storage-failed':
    case 'needs-failed':
    case 'backlog-full':
    case 'no-such-dead-letter':
    case 'already-redriven':
    case 'needs-arguments':
      return fail(code, { reason }, text) as DriftlogError;
    case 'bad-value':
      return fail(code, { path: 'action', problem: reason }, text);
    case 'bad-query':
      return fail(code, { problem: reason }, text);
    case 'closed':
      return fail(code, { what: reason }, text);
    default:
      return fail('engine-failed', { reason: text }, text);
  }
}

/** Turns what a wasm call threw into a typed error. @internal */
export function fromEngine(thrown: unknown): unknown {
  if (thrown instanceof TypedError) return thrown;
  if (thrown instanceof Error) {
    const code = (thrown as { code?: unknown }).code;
    return engineError(typeof code === 'string' ? code : 'engine-failed', thrown.message);
  }
  return engineError('engine-failed', String(thrown));
}
