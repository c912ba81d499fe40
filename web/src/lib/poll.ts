// Repeats a request while the page is visible.

/** Runs `work` now and `everyMs` after each time it is done, unless the page is hidden. The answer ends it. */
export function whileVisible(everyMs: number, work: (signal: AbortSignal) => Promise<void>): () => void {
  const ending = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let running = false;

  async function run(): Promise<void> {
    clearTimeout(timer);
    if (running || document.hidden || ending.signal.aborted) return;
    running = true;
    await work(ending.signal);
    running = false;
    if (!ending.signal.aborted) timer = setTimeout(() => void run(), everyMs);
  }

  document.addEventListener("visibilitychange", run, { signal: ending.signal });
  void run();
  return () => {
    ending.abort();
    clearTimeout(timer);
  };
}
