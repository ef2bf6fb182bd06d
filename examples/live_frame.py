# %% A server runs (`make run`); polars or pandas is installed. From `import` to a live DataFrame:
import os

import tapewick

tape = tapewick.connect(os.environ.get("TAPEWICK_URL", "http://127.0.0.1:8080"))
library = os.environ.get("FRAMES", "polars")

# %% History: exact decimals, and whether it is proven that nothing is missing
history = tape.candles("sim:BTCUSDT", "1m", limit=500)
print(history.frame(library).tail(3), "complete:", history.complete)

# %% The same, kept up to date in the background; floats only because we ask for them
live = tape.live("candle@sim:BTCUSDT@1m", rows=500)
for _ in range(3):
    live.wait(timeout=30)
    frame = live.frame(library, decimals="float")
    print(frame[["open_time", "close", "volume", "state"]].tail(1), frame["close"].mean())
# %% Done; leaving the program does the same
tape.close()
