-- POSTs a JSON text of 100 bytes. With DIFFER=path every request has a path of its own, which begins with RUN. Prints
-- requests and microseconds.
wrk.method = "POST"
wrk.body = '"' .. string.rep("x", 100) .. '"'
wrk.headers["Content-Type"] = "application/json"
local differ = os.getenv("DIFFER")
if differ then
  local base = wrk.path
  local run = os.getenv("RUN")
  local count = 0
  request = function()
    count = count + 1
    return wrk.format(nil, base .. "/" .. run .. "-" .. count)
  end
end
done = function(summary)
  local errors = summary.errors
  local bad = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("WRK %d %d %d\n", summary.requests, summary.duration, bad))
end
