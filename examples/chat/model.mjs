// In the place of a language model: a long answer, word by word. Nothing is random, so a test knows what must be there.
import { setTimeout as sleep } from "node:timers/promises";

const WORDS = Number(process.env.WORDS ?? 200);
const WORD_MS = Number(process.env.WORD_MS ?? 60);

export async function* answerTo(question) {
  yield `You asked: ${question}.`;
  for (let n = 1; n <= WORDS; n++) {
    await sleep(WORD_MS);
    yield ` word-${n}`;
  }
}
