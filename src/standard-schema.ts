/**
 * The types of Standard Schema v1 (https://standardschema.dev): the one property by which zod, valibot, arktype and
 * others let a value be checked without being known by name. Types only; restated here so that Kedge needs no package.
 */

/** A schema of any library that follows Standard Schema v1: takes an `Input`, gives an `Output`. */
export interface StandardSchema<Input = unknown, Output = Input> {
  readonly '~standard': StandardSchemaProps<Input, Output>
}

/** What stands behind the property `~standard`. */
export interface StandardSchemaProps<Input, Output> {
  readonly version: 1
  /** The library, for example `zod`. */
  readonly vendor: string
  /** Checks a value; may answer at once or later, and does not throw for a value that does not fit. */
  readonly validate: (value: unknown) => StandardResult<Output> | Promise<StandardResult<Output>>
  /** Exists for the compiler alone. */
  readonly types?: { readonly input: Input; readonly output: Output } | undefined
}

/** What a check found: the output, or at least one issue. */
export type StandardResult<Output> = StandardSuccess<Output> | StandardFailure

/** The value fits. */
export interface StandardSuccess<Output> {
  readonly value: Output
  readonly issues?: undefined
}

/** The value does not fit. */
export interface StandardFailure {
  readonly issues: readonly StandardIssue[]
}

/** One complaint, with the way to the place it speaks of. */
export interface StandardIssue {
  readonly message: string
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined
}

/** The type that a schema accepts. */
export type SchemaInput<S extends StandardSchema> = NonNullable<S['~standard']['types']>['input']

/** The type that a schema gives. */
export type SchemaOutput<S extends StandardSchema> = NonNullable<S['~standard']['types']>['output']
