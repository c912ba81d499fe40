// Uses the generated types as a program would: it compiles only while these operations have these types.
import type { operations } from "./plinth";

type Answers<Id extends keyof operations> = operations[Id]["responses"];
type Json<Answer> = Answer extends { content: { "application/json": infer Body } } ? Body : never;

const made: Json<Answers<"ensure_topic">[201]> = await (await fetch("/v1/topics/t", { method: "PUT" })).json();
const name: string = made.name;
const absent: Answers<"view_topic">[404]["content"]["application/problem+json"] = await (
  await fetch("/v1/topics/absent")
).json();
const code: "not_found" | string = absent.code;
console.log(name, code);
