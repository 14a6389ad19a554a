# frozen_string_literal: true

# Sidekiq's own Web UI:
#
#   REDIS_URL=redis://127.0.0.1:6379/0 puma --environment production --bind tcp://127.0.0.1:9292 web.ru
#
# Loads nothing else: it knows no job class, and no line of this project, but for the
# extensions that INTEROP_WEB names (Ruby files, colon between two).

require "securerandom"
require "sidekiq"
require "sidekiq/web"
require "rack/session"

ENV.fetch("INTEROP_WEB", "").split(":").each { |path| require path }

# Its forms carry a token that is kept in the session.
use Rack::Session::Cookie, secret: SecureRandom.hex(64), same_site: true, max_age: 86_400
run Sidekiq::Web
